import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { eventually } from "../../eventually.ts";
import { FakeEdge } from "../../fakes/fake-edge.ts";
import { GitHost } from "../../servers/git-host.ts";
import { DaemonFixture, SANDBOX_ID, type TokenOptions } from "../sandbox-fixture.ts";

/** A real daemon, real git and a real git host; the edge between them only changes the credential. */

const HOST_TOKEN = "CNRY-host-5f1c";
const SANDBOX_TOKEN = "CNRY-sandbox.7a21.token";

let host: GitHost;
let edge: FakeEdge;
let edgeUrl: string;
let daemon: DaemonFixture;

beforeEach(async () => {
  host = await GitHost.start();
  await host.addRepository("team/app", { token: HOST_TOKEN });
  await host.addRepository("team/docs", { token: HOST_TOKEN });
  edge = new FakeEdge({
    app: { url: host.repositoryUrl("team/app"), token: HOST_TOKEN },
    docs: { url: host.repositoryUrl("team/docs"), token: HOST_TOKEN },
  });
  edge.accepted = new Set([SANDBOX_TOKEN]);
  edgeUrl = await edge.start();
  daemon = new DaemonFixture();
  await daemon.start();
}, 30_000);

afterEach(async () => {
  await daemon.remove();
  await edge.close();
  await host.close();
});

/** As a session names them: a host that this machine cannot reach. */
const APP = { name: "app", url: "https://git.example/team/app", path: "src/app" };
const DOCS = { name: "docs", url: "https://git.example/team/docs.git", path: "docs" };

async function set(
  repositories: { name: string; url: string; path: string; branch?: string }[] = [APP],
  { sandboxToken = SANDBOX_TOKEN, token }: { sandboxToken?: string; token?: TokenOptions } = {},
) {
  const request = { edgeUrl, sandboxToken, repositories };
  return await daemon.client(token).repositories(daemon.address, request);
}

const inWorkspace = (path: string) => join(daemon.workspace, path);
const ready = (name: string) => ({ name, state: "ready" });

describe("PUT /v1/repositories", () => {
  it("clones each repository into its folder, by the URL it is known by", async () => {
    expect(await set([APP, DOCS])).toEqual([ready("app"), ready("docs")]);

    expect(readFileSync(inWorkspace("src/app/README.md"), "utf8")).toBe("# team/app\n");
    expect(readFileSync(inWorkspace("docs/README.md"), "utf8")).toBe("# team/docs\n");
    expect(readFileSync(inWorkspace("src/app/.git/config"), "utf8")).toContain(APP.url);
    expect(readdirSync(daemon.workspace).toSorted()).toEqual(["docs", "src"]);
  }, 30_000);

  it("git in the shell pulls, commits and pushes without being told of any edge", async () => {
    await set();

    const { content, is_error } = await daemon.bash(
      "cd src/app && git pull -q && git switch -qc agent/work && echo new >new.txt && git add new.txt && git commit -qm 'Add a file' && git push -q origin agent/work && git log -1 --format='%an <%ae>'",
    );

    expect({ content, is_error }).toEqual({
      content: "Drover agent <agent@drover.invalid>",
      is_error: false,
    });
    expect(await host.read("team/app", "show", "agent/work:new.txt")).toBe("new");
  }, 30_000);

  it("checks the branch out that is asked for", async () => {
    await host.read("team/app", "branch", "release/1", "main");

    expect(await set([{ ...APP, branch: "release/1" }])).toEqual([ready("app")]);
    const head = await daemon.bash("git -C src/app branch --show-current");
    expect(head.content).toBe("release/1");
  }, 30_000);

  it("leaves a folder that is there alone, whatever is in it", async () => {
    mkdirSync(inWorkspace("src/app"), { recursive: true });
    const before = host.received.length;

    expect(await set()).toEqual([ready("app")]);

    expect(readdirSync(inWorkspace("src/app"))).toEqual([]);
    expect(host.received).toHaveLength(before);
  }, 30_000);

  it("a newer token takes the place of the older one, for git that is used by then too", async () => {
    await set();
    edge.accepted = new Set(["second.token"]);
    const refused = await daemon.bash("git -C src/app fetch");
    await set([APP], { sandboxToken: "second.token" });
    const taken = await daemon.bash("git -C src/app fetch");

    expect(refused.is_error).toBe(true);
    expect(taken.is_error).toBe(false);
  }, 30_000);

  it("says in git's words why a repository is not there; the others are", async () => {
    const missing = { name: "gone", url: "https://git.example/team/gone", path: "gone" };
    const branch = { ...DOCS, branch: "no-such" };

    const [app, gone, docs] = await set([APP, missing, branch]);

    expect(app).toEqual(ready("app"));
    expect(gone).toMatchObject({ name: "gone", state: "failed" });
    expect(gone?.message).toMatch(
      /the edge knows no such repository.*'https:\/\/git.example\/team\/gone\/' not found/,
    );
    expect(docs?.message).toContain("Remote branch no-such not found");
    for (const { message } of [gone ?? {}, docs ?? {}] as { message?: string }[]) {
      expect(message).not.toContain(daemon.root);
      expect(message).not.toContain(SANDBOX_TOKEN);
      expect(message).not.toContain(edgeUrl);
    }
    expect(readdirSync(daemon.workspace)).toEqual(["src"]);
  }, 30_000);

  it("what failed is tried again by the next request", async () => {
    edge.accepted = new Set();
    expect(await set()).toMatchObject([{ state: "failed" }]);
    edge.accepted = new Set([SANDBOX_TOKEN]);

    expect(await set()).toEqual([ready("app")]);
  }, 30_000);

  it("requests that come while it clones join: the host sees one clone", async () => {
    const open = Promise.withResolvers<void>();
    edge.gate = open.promise;
    const both = Promise.all([set(), set()]);
    await eventually("a token at the edge", () => edge.shown.length > 0);
    open.resolve();

    expect(await both).toEqual([[ready("app")], [ready("app")]]);
    const packs = host.received.filter(({ url }) =>
      url.endsWith("/info/refs?service=git-upload-pack"),
    );
    expect(packs).toHaveLength(1);
  }, 30_000);

  it("refuses a path that leads through a link, and one that leaves the workspace", async () => {
    symlinkSync("/tmp", inWorkspace("src"));

    expect(await set()).toEqual([
      { name: "app", state: "failed", message: "`src` is there and not a folder" },
    ]);
    await expect(set([{ ...APP, path: "../out" }])).rejects.toMatchObject({
      code: "INPUT_INVALID",
    });
    expect(existsSync(join(daemon.root, "out"))).toBe(false);
  }, 30_000);

  it.each([
    { what: "an option for a branch", request: [{ ...APP, branch: "--upload-pack=touch x" }] },
    { what: "a line break in a URL", request: [{ ...APP, url: "https://git.example/a/b\n[x]" }] },
    { what: "a folder of git", request: [{ ...APP, path: ".git/hooks" }] },
    { what: "no path", request: [{ name: "app", url: APP.url } as typeof APP] },
  ])("refuses $what", async ({ request }) => {
    await expect(set(request)).rejects.toMatchObject({ code: "INPUT_INVALID" });
  });

  it("is guarded as tool calls are: another session's token, an earlier epoch", async () => {
    await set([], { token: { claims: { epoch: 2 } } });

    await expect(set([], { token: { claims: { epoch: 1 } } })).rejects.toMatchObject({
      code: "SANDBOX_STALE_EPOCH",
    });
    await expect(set([], { token: { claims: { sub: "sesn_2" } } })).rejects.toMatchObject({
      code: "SANDBOX_BOUND",
    });
    await expect(set([], { token: { audience: "drover-edge" } })).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
    });
  }, 30_000);
});

describe("the sandbox token", () => {
  it("is in no environment and no argument list while git runs, and in one file of mode 0600", async () => {
    const open = Promise.withResolvers<void>();
    edge.gate = open.promise;
    const cloning = set();
    await eventually("a token at the edge", () => edge.shown.length > 0);
    const fetching = daemon.bash("git ls-remote https://git.example/team/app");
    await eventually("another token at the edge", () => edge.shown.length > 1);
    const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
    const texts = processes.flatMap((pid) => {
      const [environment, command] = [read(`/proc/${pid}/environ`), read(`/proc/${pid}/cmdline`)];
      return environment.includes(SANDBOX_ID) ? [environment, command] : [];
    });
    open.resolve();
    await cloning;
    expect((await fetching).is_error).toBe(false);

    // The positive control: git and its helper were there to be looked at.
    expect(texts.filter((text) => text.includes("remote-http")).length).toBeGreaterThanOrEqual(2);
    expect(texts.filter((text) => text.includes(SANDBOX_TOKEN))).toEqual([]);
    const holders = filesBelow(daemon.root).filter((file) => read(file).includes(SANDBOX_TOKEN));
    expect(holders).toEqual([join(daemon.journal, "git", "config")]);
    expect(statSync(holders[0] ?? "").mode & 0o777).toBe(0o600);
    expect(edge.shown).toContain(`Bearer ${SANDBOX_TOKEN}`);
    expect(daemon.log).not.toContain(SANDBOX_TOKEN);
  }, 30_000);
});

describe("a daemon that ends while it clones", () => {
  it.each(["SIGKILL", "SIGTERM"] as const)(
    "by %s leaves no half clone",
    async (signal) => {
      const open = Promise.withResolvers<void>();
      host.intercept = async ({ method }) => {
        if (method === "POST") await open.promise;
        return false;
      };
      const cloning = set().catch(() => "cut off");
      await eventually("a push", () => host.received.some(({ method }) => method === "POST"));
      await daemon.kill(signal);
      await cloning;
      expect(existsSync(inWorkspace("src/app"))).toBe(false);
      open.resolve();

      await daemon.start();
      expect(readdirSync(daemon.workspace)).toEqual([]);
      expect(processesOfSandbox().filter((text) => text.includes("git\0clone"))).toEqual([]);
      expect(await set()).toEqual([ready("app")]);
      expect(readFileSync(inWorkspace("src/app/README.md"), "utf8")).toBe("# team/app\n");
    },
    30_000,
  );
});

function processesOfSandbox(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => read(`/proc/${pid}/environ`).includes(`DROVER_SANDBOX=${SANDBOX_ID}`))
    .map((pid) => read(`/proc/${pid}/cmdline`));
}

function read(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    // A process that has ended, or another user's.
    return "";
  }
}

function filesBelow(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
