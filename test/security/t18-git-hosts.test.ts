import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { GitRig } from "../integration/proxy/git-rig.ts";
import { startUpstream, type Upstream } from "../integration/proxy/rig.ts";
import { type Intercept, redirectTo } from "../servers/git-host.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T18: a git host that has turned hostile sends git, or the edge, elsewhere: by redirects, by
 * submodules and by alternates. Whoever is asked there must see neither the host's token nor the
 * sandbox's, and git must end with an error or without the other's content.
 */

const marker = newMarker("T18");
const cleanups = new Cleanups();
let rig: GitRig;
/** Where the hostile host points; a place the edge may dial, so that only its rules keep it away. */
let elsewhere: Upstream;

beforeEach(async () => {
  elsewhere = await startUpstream(cleanups, (_received, response) => {
    response.writeHead(401, { "www-authenticate": 'Basic realm="elsewhere"' }).end();
  });
  rig = await GitRig.start(cleanups, {
    token: marker,
    inClusterServers: (host) => [host.authority, elsewhere.authority],
  });
});
afterEach(async () => await cleanups.run());

/** No request there brought anything that opens a door. */
function expectNoCredential(): void {
  for (const { headers, rawHeaders, url } of elsewhere.received) {
    expect(headers).not.toHaveProperty("authorization");
    const text = [...rawHeaders, url].join("\n").toLowerCase();
    expect(text).not.toContain(marker.toLowerCase());
    expect(text).not.toContain(rig.token.toLowerCase());
  }
}

it("without hostility the clone works, and the host sees its token", async () => {
  await rig.clone();

  const basic = `Basic ${Buffer.from(`x-access-token:${marker}`).toString("base64")}`;
  expect(rig.host.received.map(({ headers }) => headers.authorization)).toContain(basic);
});

describe("redirects", () => {
  it.each([301, 307])("a %d of info/refs is followed by nobody", async (status) => {
    rig.host.intercept = (_request, response) => {
      response.writeHead(status, { location: `${elsewhere.url}/team/app/info/refs` }).end();
      return true;
    };

    const { code, stderr } = await rig.git(["clone", rig.repositoryUrl, "app"]);

    expect(code).toBe(128);
    expect(stderr).toContain(`answered a redirect (${status}), which is not followed`);
    expect(elsewhere.received).toEqual([]);
  });

  it("a redirect in the middle of a fetch or of a push is followed by nobody", async () => {
    const folder = await rig.clone();
    await rig.commit(folder, "notes.md", "hello\n");
    rig.host.intercept = (request, response) => {
      if (request.method !== "POST") return false;
      response.writeHead(307, { location: `${elsewhere.url}/steal` }).end();
      return true;
    };

    const cloned = await rig.git(["clone", rig.repositoryUrl, "again"]);
    const pushed = await rig.git(["-C", folder, "push", "origin", "HEAD:agent/x"]);

    expect(cloned.stderr).toContain("answered a redirect (307), which is not followed");
    expect(pushed.stderr).toContain("answered a redirect (307), which is not followed");
    expect([cloned.code, pushed.code]).toEqual([128, 1]);
    expect(elsewhere.received).toEqual([]);
  });

  it("git that would follow any redirect is not shown one", async () => {
    rig.host.intercept = redirectTo(`${elsewhere.url}/team/app/info/refs?service=git-upload-pack`);

    const { code } = await rig.git(["clone", rig.repositoryUrl, "app"], {
      GIT_CONFIG_COUNT: "2",
      GIT_CONFIG_KEY_1: `http.${rig.url}/.followRedirects`,
      GIT_CONFIG_VALUE_1: "true",
    });

    expect(code).toBe(128);
    expect(elsewhere.received).toEqual([]);
  });
});

describe("submodules", () => {
  /** `main` of the repository with a submodule at this URL, on the host itself. */
  async function plantSubmodule(url: string): Promise<void> {
    const work = join(rig.home, "planted");
    const git = async (...args: string[]) => await rig.host.git(["-C", work, ...args]);
    await rig.host.git(["clone", "--quiet", rig.host.folder("team/app"), work]);
    await writeFile(join(work, ".gitmodules"), `[submodule "sub"]\n\tpath = sub\n\turl = ${url}\n`);
    await git("add", ".gitmodules");
    const id = (await git("rev-parse", "HEAD")).trim();
    await git("update-index", "--add", "--cacheinfo", `160000,${id},sub`);
    await git("commit", "--quiet", "-m", "Submodule");
    await git("push", "--quiet", "origin", "HEAD:main");
  }

  it.each([
    ["on another host", () => `${elsewhere.url}/team/sub`, 1],
    ["at a URL without a host", () => "https:///evil/sub", 0],
    ["at a URL with a carriage return", () => `"${elsewhere.url}\\r/team/sub"`, 0],
    [
      "at a URL with an encoded line break",
      () => `${elsewhere.url}/x%0d%0aauthorization:%20x/sub`,
      0,
    ],
    ["beside the repository", () => "../other", 0],
    ["at the edge itself, by another name", () => `${rig.url}/git/other`, 0],
    ["that names an option of git", () => '"-u./payload"', 0],
    ["that names a program", () => '"ext::sh -c touch% stolen"', 0],
  ])("one %s gets no credential", async (_what, urlOf, asked) => {
    await plantSubmodule(urlOf());

    const { code } = await rig.git(["clone", "--recurse-submodules", rig.repositoryUrl, "app"]);

    expect(code).not.toBe(0);
    expectNoCredential();
    expect(elsewhere.received.length).toBeGreaterThanOrEqual(asked);
    const others = rig.host.received.filter(({ url }) => !url.startsWith("/team/app/"));
    expect(others.filter(({ headers }) => headers.authorization !== undefined)).toEqual([]);
    expect(await rig.ok("-C", "app", "log", "-1", "--format=%s")).toBe("Submodule");
  });
});

describe("answers of another form", () => {
  const dumb: Intercept = (request, response) => {
    response.writeHead(200, { "content-type": "text/plain" });
    response.end(
      request.url.includes("alternates")
        ? `${elsewhere.url}/objects\n`
        : `${"1".repeat(40)}\trefs/heads/main\n`,
    );
    return true;
  };

  it("a host that falls back to the dumb protocol cannot name alternates", async () => {
    rig.host.intercept = dumb;

    const { code, stderr } = await rig.git(["clone", rig.repositoryUrl, "app"]);

    expect(code).toBe(128);
    expect(stderr).toContain("does not speak git's smart HTTP");
    expect(rig.host.received.map(({ url }) => url)).toEqual([
      "/team/app/info/refs?service=git-upload-pack",
    ]);
    expect(elsewhere.received).toEqual([]);
  });

  it("headers of the host do not reach git", async () => {
    rig.host.intercept = (_request, response) => {
      response.setHeader("location", elsewhere.url);
      response.setHeader("set-cookie", `token=${marker}`);
      response.setHeader("refresh", `0; url=${elsewhere.url}`);
      response.setHeader("x-echo", marker);
      return false;
    };

    const answer = await rig.fetch("/git/app/info/refs?service=git-upload-pack");

    expect(answer.status).toBe(200);
    expect([...answer.headers.keys()].toSorted()).toEqual([
      "cache-control",
      "connection",
      "content-type",
      "date",
      "keep-alive",
      "transfer-encoding",
    ]);
  });
});
