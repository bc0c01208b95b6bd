import { mkdir, readFile, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { GitRig } from "../integration/proxy/git-rig.ts";
import { echoCredential } from "../servers/git-host.ts";
import { newMarker, Sweeper } from "./sweeper.ts";

/**
 * T16: real git clones, fetches and pushes a repository whose host wants a token. The host repeats
 * that token wherever it can, and everything git wrote, logged, printed, ran and was given is
 * searched for it. The sandbox's own token does appear there; from another pod it must be worthless.
 */

const marker = newMarker("T16");
const cleanups = new Cleanups();
const printed: string[] = [];
let rig: GitRig;
let folder: string;

/** Everything git can be made to tell, secrets in headers included. */
function tracing(name: string): Record<string, string> {
  return {
    GIT_TRACE: join(rig.home, `${name}.trace`),
    GIT_TRACE_CURL: join(rig.home, `${name}.curl`),
    GIT_TRACE_PACKET: join(rig.home, `${name}.packet`),
    GIT_TRACE2_EVENT: join(rig.home, `${name}.event`),
    GIT_TRACE_REDACT: "0",
  };
}

async function git(name: string, ...args: string[]) {
  const result = await rig.git(args, tracing(name));
  printed.push(`${result.stdout}\n${result.stderr}`);
  return result;
}

/** Called by git itself: what its processes have been given. */
const SPY = `#!/bin/sh
cat /proc/self/environ /proc/$PPID/environ /proc/$PPID/cmdline >> "$HOME/spied" 2>/dev/null
parent=$(cut -d' ' -f4 /proc/$PPID/stat)
cat /proc/$parent/environ /proc/$parent/cmdline >> "$HOME/spied" 2>/dev/null
git config --list --show-origin >> "$HOME/spied"
exit 0
`;

beforeAll(async () => {
  rig = await GitRig.start(cleanups, { token: marker });
  const hooks = join(rig.host.folder("team/app"), "hooks");
  // A host's hooks speak to whoever pushes: here in pieces, and in a refusal.
  await writeFile(
    join(hooks, "pre-receive"),
    `#!/bin/sh
printf '%0120d' 0 >&2; echo " pushed with ${marker}" >&2
while read old new ref; do case "$ref" in */refused) echo "no: ${marker}" >&2; exit 1;; esac; done
`,
    { mode: 0o755 },
  );
  await rig.host.git(["-C", rig.host.folder("team/app"), "branch", `seen-${marker}`, "main"]);
  const templates = join(rig.home, "templates", "hooks");
  await mkdir(templates, { recursive: true });
  for (const hook of ["post-checkout", "pre-push", "reference-transaction"]) {
    await writeFile(join(templates, hook), SPY, { mode: 0o755 });
  }

  const template = `--template=${join(rig.home, "templates")}`;
  await git("clone", "clone", template, rig.repositoryUrl, "app");
  folder = join(rig.home, "app");
  await git("fetch", "-C", folder, "fetch", "--prune", "origin");
  await rig.commit(folder, "notes.md", "hello\n");
  await git("push", "-C", folder, "push", "origin", "HEAD:agent/notes");
  await git("refused", "-C", folder, "push", "origin", "HEAD:agent/refused");
  rig.host.intercept = echoCredential(403);
  await git("echo", "-C", folder, "fetch", "origin");
  rig.host.intercept = undefined;
});

afterAll(async () => await cleanups.run());

it("everything worked, and the host saw its token on every request", async () => {
  const basic = `Basic ${Buffer.from(`x-access-token:${marker}`).toString("base64")}`;

  expect(await rig.host.read("team/app", "show", "agent/notes:notes.md")).toBe("hello");
  expect(rig.host.received.length).toBeGreaterThan(8);
  expect(rig.host.received.filter(({ headers }) => headers.authorization !== basic)).toEqual([]);
});

it("the searched places hold what they would show: headers, environments, words of the host", async () => {
  expect(await readFile(join(rig.home, "push.curl"), "utf8")).toContain(`Bearer ${rig.token}`);
  expect(await readFile(join(rig.home, "spied"), "utf8")).toContain("GIT_CONFIG_KEY_0");
  expect(printed.join("")).toContain("pushed with ***");
  expect(printed.join("")).toContain("status 403: not accepted:");
});

it("the host's token is in no file, trace, environment, argument or word of git", async () => {
  const sweeper = new Sweeper([marker]);

  await sweeper.files(rig.home);
  sweeper.text("printed by git", printed.join("\n"));
  sweeper.text("log of the edge", rig.logLines.join("\n"));
  sweeper.text("metrics of the edge", await rig.registry.metrics());
  sweeper.json("audit", rig.uses);
  sweeper.json("reports on credentials", rig.reports);

  expect(sweeper.findings).toEqual([]);
  expect(sweeper.bytes).toBeGreaterThan(100_000);
});

it("the sandbox's token opens nothing from another address, nor after its session or its binding has ended", async () => {
  const before = rig.host.received.length;

  expect(await statusFrom("127.0.0.1")).toBe(200);
  expect(await statusFrom("127.0.0.2")).toBe(403);
  rig.terminated = true;
  expect(await statusFrom("127.0.0.1")).toBe(409);
  rig.terminated = false;
  rig.bindings.clear();
  expect(await statusFrom("127.0.0.1")).toBe(403);

  expect(rig.host.received).toHaveLength(before + 1);
});

async function statusFrom(localAddress: string): Promise<number | undefined> {
  return await new Promise((resolve, reject) => {
    const asked = request(
      `${rig.url}/git/app/info/refs?service=git-upload-pack`,
      { localAddress, headers: { authorization: `Bearer ${rig.token}` } },
      (answer) => {
        answer.resume();
        answer.once("end", () => resolve(answer.statusCode));
      },
    );
    asked.once("error", reject);
    asked.end();
  });
}
