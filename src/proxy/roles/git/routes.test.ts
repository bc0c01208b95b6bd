import { describe, expect, it } from "@jest/globals";
import { gitRouteOf } from "./routes.ts";

describe("routes of git", () => {
  it.each([
    ["GET", "/git/app/info/refs", "service=git-upload-pack", "app", "git-upload-pack", "refs"],
    [
      "GET",
      "/git/app.git/info/refs",
      "service=git-receive-pack",
      "app",
      "git-receive-pack",
      "refs",
    ],
    ["POST", "/git/my-app/git-upload-pack", "", "my-app", "git-upload-pack", "exchange"],
    ["POST", "/git/a/git-receive-pack", "", "a", "git-receive-pack", "exchange"],
  ])("%s %s?%s is one", (method, path, query, repository, service, step) => {
    expect(gitRouteOf(method, path, query)).toEqual({ repository, service, step });
  });

  it.each([
    ["GET", "/git/app/info/refs", "", "dumb protocol"],
    [
      "GET",
      "/git/app/info/refs",
      "service=git-upload-pack&service=git-receive-pack",
      "one parameter",
    ],
    ["GET", "/git/app/info/refs", "service=git-upload-pack&x=1", "one parameter"],
    ["GET", "/git/app/info/refs", "service=git-upload-archive", "one parameter"],
    ["GET", "/git/app/info/refs", "service=git%2dupload-pack", "one parameter"],
    ["POST", "/git/app/info/refs", "service=git-upload-pack", "takes GET"],
    ["GET", "/git/app/git-upload-pack", "", "takes POST"],
    ["POST", "/git/app/git-receive-pack", "x", "without parameters"],
    ["GET", "/git/app/HEAD", "", "dumb protocol"],
    ["GET", "/git/app/objects/info/packs", "", "dumb protocol"],
    ["POST", "/git/app/info/lfs/objects/batch", "", "LFS"],
    ["GET", "/git/app.git/info/lfs/locks", "", "LFS"],
    ["GET", "/git/app/../other/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/app/%2e%2e/other/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git//app/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/app//info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/app;x/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/app/info/refs;x", "service=git-upload-pack", "no such route"],
    ["GET", "/git/APP/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/team/app/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "http://evil/git/app/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/git/app.git.git/info/refs", "service=git-upload-pack", "no such route"],
    ["GET", "/", "", "no such route"],
  ])("%s %s?%s is none, and the answer says why", (method, path, query, words) => {
    expect(() => gitRouteOf(method, path, query)).toThrow(
      expect.objectContaining({ code: "NOT_FOUND", message: expect.stringContaining(words) }),
    );
  });
});
