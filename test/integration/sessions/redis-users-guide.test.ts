import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { Secret } from "../../../src/runtime/secret.ts";
import { probeRedis } from "../../../src/sessions/redis/probe.ts";
import { tenSessionsThroughKill } from "../../builders/sessions-through-a-kill.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";

/** Says what it was asked, and fails as the real one would for a file that is missing or empty. */
const KUBECTL = `#!/bin/bash
set -e
for word; do [[ $word != --from-file=* ]] || test -s "\${word##*=}"; done
echo "$@"
`;

/** The commands of docs/guides/redis-users.md, run as they stand there. */

let server: RedisServer;
let folder: string;
let said: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-redis-guide-"));
  await writeFile(join(folder, "server.acl"), "user admin on >admin ~* &* +@all\n");
  server = await startRedis({ args: ["--aclfile", join(folder, "server.acl")] });
  await mkdir(join(folder, "deploy"));
  await cp("deploy/redis", join(folder, "deploy/redis"), { recursive: true });
  await writeFile(join(folder, "kubectl"), KUBECTL, { mode: 0o755 });
  const guide = await readFile("docs/guides/redis-users.md", "utf8");
  const blocks = [...guide.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, text = ""]) => text);
  said = [];
  for (const block of blocks) said.push(await bash(block));
});

afterAll(async () => {
  await server.stop();
  await rm(folder, { recursive: true });
});

function administrator(): string {
  return server.url.replace("//", "//admin:admin@");
}

async function bash(script: string): Promise<string> {
  const PATH = `${folder}:${process.env["PATH"] ?? ""}`;
  const options = { cwd: folder, env: { ...process.env, PATH, REDIS_URL: administrator() } };
  const { stdout } = await promisify(execFile)("bash", ["-euo", "pipefail", "-c", script], options);
  return stdout;
}

it("step 2 makes four users", () => {
  expect(said[1]?.trim().split("\n")).toEqual(["OK", "OK", "OK", "OK"]);
});

it("step 3 says what each may not", () => {
  const [harness, ...others] = said[2]?.trim().split("\n") ?? [];

  expect(harness).toBe("OK");
  expect(others).toEqual([
    expect.stringContaining("has no permissions to run the 'xrange' command"),
    expect.stringContaining("has no permissions to access the 'drover:s:{abcd.00}"),
    expect.stringContaining("has no permissions to run the 'keys' command"),
  ]);
});

it("the passwords of step 1 are those of the users", async () => {
  for (const username of ["operator", "harness"] as const) {
    const password = new Secret(await readFile(join(folder, `${username}.password`), "utf8"));
    const address = { url: server.url, username, password };

    const facts = await probeRedis(address, { commit: { mode: "fsync" } });
    expect(facts.product).toBe("redis");
  }
});

it("step 4 gives the cluster the four passwords", () => {
  expect(said).toHaveLength(5);
  expect(said[3]).toMatch(/^create secret generic --namespace drover redis-login/);
  for (const process of ["operator", "harness", "proxy", "edge"]) {
    expect(said[3]).toContain(`--from-file=${process}=${process}.password`);
  }
});

it("after step 5 the default user lets nobody in, and kill -9 loses no session", async () => {
  expect(said[4]).toBe("OK\n");
  await bash('redis-cli -u "$REDIS_URL" ACL SAVE');
  const password = new Secret(await readFile(join(folder, "operator.password"), "utf8"));
  const operator = { url: server.url, username: "operator", password };

  const seqs = await tenSessionsThroughKill(server, operator);

  expect(seqs).toEqual(Array.from({ length: 10 }, () => 2));
  const anybody = await bash(`redis-cli -p ${server.port} PING 2>&1`);
  expect(anybody).toMatch(/^NOAUTH/);
});
