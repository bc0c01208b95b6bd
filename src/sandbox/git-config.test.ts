import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { GIT_DEFAULTS, gitEnvironment, gitFiles, renderGitConfig } from "./git-config.ts";

/** What real git makes of the files. */

const TOKEN = "eyJh.eyJz.c2ln";
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-git-config-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function git(edgeUrl: string, args: string[], more: Record<string, string> = {}): string {
  const files = { transport: join(folder, "config"), defaults: join(folder, "defaults") };
  const repositories = [
    { name: "app", url: "https://git.example/team/app" },
    { name: "docs", url: "https://git.example/team/app-docs.git" },
  ].map((repository) => ({ ...repository, path: repository.name }));
  const request = { edgeUrl, sandboxToken: TOKEN, repositories };
  writeFileSync(files.transport, renderGitConfig(request));
  writeFileSync(files.defaults, GIT_DEFAULTS);
  const env = { PATH: process.env["PATH"], HOME: folder, ...gitEnvironment(files), ...more };
  return execFileSync("git", args, { cwd: folder, env, encoding: "utf8" }).trim();
}

describe("renderGitConfig", () => {
  it.each([
    ["https://git.example/team/app", "/git/app.git"],
    ["https://git.example/team/app.git", "/git/app.git"],
    ["https://git.example/team/app-docs", "/git/docs.git"],
    ["https://git.example/team/app-docs.git", "/git/docs.git"],
    // Of a neighbour that is none of the session's: a path without route.
    ["https://git.example/team/app-x", "/git/app.git-x"],
  ])("sends %s to %s of the edge", (url, path) => {
    const edge = "http://10.1.2.3:7080";

    expect(git(edge, ["ls-remote", "--get-url", url])).toBe(`${edge}${path}`);
  });

  it.each(["http://10.1.2.3:7080", "http://[fd00::1]:7080", "https://10.1.2.3"])(
    "the token goes to %s and to nobody else",
    (edge) => {
      const header = ["config", "--get-urlmatch", "http.extraHeader"];

      expect(git(edge, [...header, `${edge}/git/app`])).toBe(`Authorization: Bearer ${TOKEN}`);
      for (const other of ["http://10.1.2.4:7080/git/app", "https://git.example/team/app"]) {
        expect(() => git(edge, [...header, other])).toThrow("Command failed");
      }
    },
  );
});

describe("GIT_DEFAULTS", () => {
  it("gives a name to commit under, which the home folder may replace", () => {
    const edge = "http://10.1.2.3:7080";
    const name = ["config", "user.name"];
    expect(git(edge, name)).toBe("Drover agent");

    writeFileSync(join(folder, ".gitconfig"), "[user]\n\tname = Someone\n");
    expect(git(edge, name)).toBe("Someone");
  });
});

describe("gitEnvironment", () => {
  it("holds paths and no token, and git works while the files are not there yet", () => {
    const env = gitEnvironment(gitFiles(join(folder, "nothing")));

    expect(execFileSync("git", ["version"], { env: { ...process.env, ...env } })).toBeDefined();
    expect(Object.keys(env).toSorted()).toEqual([
      "GIT_CONFIG_COUNT",
      "GIT_CONFIG_KEY_0",
      "GIT_CONFIG_SYSTEM",
      "GIT_CONFIG_VALUE_0",
      "GIT_TERMINAL_PROMPT",
    ]);
  });
});
