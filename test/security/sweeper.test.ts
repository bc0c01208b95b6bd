import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { type RedisServer, startRedis } from "../servers/redis-server.ts";
import { run } from "./commands.ts";
import { newMarker, Sweeper } from "./sweeper.ts";

const marker = newMarker("SWEEP");
const other = newMarker("SWEEP");
let folder = "";
let redis: RedisServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-sweeper-"));
  redis = await startRedis();
});

afterAll(async () => {
  await redis?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** Where the sweep finds the marker. */
async function places(search: (sweeper: Sweeper) => unknown): Promise<string[]> {
  const sweeper = new Sweeper([marker, other]);
  await search(sweeper);
  expect(sweeper.bytes).toBeGreaterThan(0);
  expect(sweeper.findings.filter((finding) => finding.marker !== marker)).toEqual([]);
  return [...new Set(sweeper.findings.map(({ place }) => place))];
}

const base64 = (text: string) => Buffer.from(text).toString("base64");
const encodings: Record<string, string> = {
  "as it is": marker,
  "in base64": base64(marker),
  "in base64 after one byte": base64(`:${marker}!`),
  "in base64 after two bytes": base64(`a:${marker}!!`),
  "in base64url": Buffer.from(`ü${marker}ü`).toString("base64url"),
  "as a Basic pair": base64(`x-access-token:${marker}`),
  "in hex": Buffer.from(marker).toString("hex"),
  "in upper-case hex": Buffer.from(marker).toString("hex").toUpperCase(),
  "URL-encoded": encodeURIComponent(marker),
  "JSON-escaped by code": `{"${Array.from(marker, (c) => `\\u00${c.charCodeAt(0).toString(16)}`).join("")}":1}`,
};

describe("the sweeper finds a marker", () => {
  it.each(Object.entries(encodings))("%s", async (_, text) => {
    expect(await places((sweeper) => sweeper.text("log", `before ${text} after`))).not.toEqual([]);
  });

  it("in UTF-16, as a heap may hold it", async () => {
    const text = Buffer.from(`ü${marker}`, "utf16le");
    expect(await places((sweeper) => sweeper.text("heap", text))).toEqual(["heap"]);
  });

  it("in a compressed body", async () => {
    const texts = [gzipSync(marker), deflateSync(marker)];
    for (const text of texts) {
      expect(await places((sweeper) => sweeper.text("body", text))).toEqual(["body (inflated)"]);
    }
  });

  it("in a file's text, in its name and in a link", async () => {
    await writeFile(join(folder, "text"), `key=${marker}`);
    await writeFile(join(folder, `name-${marker}`), "");
    await symlink(`/nowhere/${marker}`, join(folder, "link"));

    expect(await places((sweeper) => sweeper.files(folder))).toEqual(
      expect.arrayContaining([join(folder, "text"), "file names", `link ${join(folder, "link")}`]),
    );
  });

  it("in a git repository: a loose object, a packed one, the reflog", async () => {
    const repository = join(folder, "repository");
    const git = async (...args: string[]) => await run("git", ["-C", repository, ...args]);
    await run("git", ["init", "-q", repository]);
    await git("config", "user.name", "Test");
    await git("config", "user.email", "test@example.org");
    await writeFile(join(repository, "file"), `${marker}\n`);
    await git("add", "file");
    await git("commit", "-q", "-m", "a file");
    await git("rm", "-q", "file");
    await git("commit", "-q", "-m", "no file");
    const inObjects = `git objects of ${join(repository, ".git")}`;

    const loose = await places((sweeper) => sweeper.files(repository));
    expect(loose).toContain(inObjects);
    expect(loose).toContainEqual(expect.stringMatching(/objects\/..\/.{38} \(inflated\)$/));

    await git("gc", "-q", "--prune=now");
    expect(await places((sweeper) => sweeper.files(repository))).toEqual([inObjects]);

    await git("commit", "-q", "--allow-empty", "-m", marker);
    await git("reset", "-q", "--hard", "HEAD~1");
    expect(await places((sweeper) => sweeper.files(repository))).toContain(
      join(repository, ".git/logs/HEAD"),
    );
  });

  it("in the command line, the environment and the memory of a process", async () => {
    const [first, second] = [marker.slice(0, 20), marker.slice(20)];
    const hold = "globalThis.kept = Buffer.from(process.argv[1] + process.argv[2]); console.log(1)";
    const script = `${hold}; process.stdin.resume()`;
    const stdio = ["pipe", "pipe", "ignore"] as const;
    const remembers = spawn(process.execPath, ["-e", script, first, second], { stdio: [...stdio] });
    const shows = spawn("cat", ["-", marker], {
      stdio: ["pipe", "ignore", "ignore"],
      env: { ...process.env, KEY: marker },
    });
    try {
      await once(remembers.stdout, "data");
      const pids = [shows.pid ?? 0, remembers.pid ?? 0];

      expect(await places((sweeper) => sweeper.processes(pids))).toEqual([
        `/proc/${shows.pid}/cmdline`,
        `/proc/${shows.pid}/environ`,
      ]);
      expect(await places((sweeper) => sweeper.memory([remembers.pid ?? 0]))).toEqual([
        `memory of process ${remembers.pid}`,
      ]);
    } finally {
      remembers.kill("SIGKILL");
      shows.kill("SIGKILL");
    }
  });

  it("in Redis: every type of key, key names, and what was deleted", async () => {
    const client = new Redis(redis.url);
    const long = `${"a".repeat(200)}${marker}${"a".repeat(200)}`;
    await client.set("string", long);
    await client.hset("hash", "field", long);
    await client.hset("hash-field", long, "value");
    await client.rpush("list", long);
    await client.sadd("set", long);
    await client.zadd("zset", 1, long);
    await client.xadd("stream", "*", "field", long);
    await client.set(`name:${marker}`, "value");
    const keys = ["string", "hash", "hash-field", "list", "set", "zset", "stream"];
    const stored = await places((sweeper) => sweeper.redis(redis.url, { files: false }));
    expect(stored.toSorted()).toEqual(
      [...keys, `name:${marker}`]
        .map((key) => `redis key ${key}`)
        .concat("redis key names")
        .filter((place) => !place.includes(marker))
        .toSorted(),
    );

    await client.flushall();
    client.disconnect();
    const deleted = await places((sweeper) => sweeper.redis(redis.url));
    expect(deleted).toContainEqual(expect.stringContaining(".aof"));
  });
});

it("nothing is found where there is no marker", async () => {
  expect(await places((sweeper) => sweeper.files("test/security/sabotages"))).toEqual([]);
});
