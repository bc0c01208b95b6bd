import { spawn } from "node:child_process";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { systemClock } from "../../../src/runtime/clock.ts";
import { codeOf } from "../../../src/runtime/errors.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import {
  openFileBackend,
  openFileSessionStore,
} from "../../../src/sessions/file/file-session-store.ts";
import { decodeRecords, encodeRecord } from "../../../src/sessions/file/record-file.ts";
import type { SessionRef, SessionStore } from "../../../src/sessions/session-log.ts";
import { assembleStore } from "../../../src/sessions/store/session-store.ts";
import {
  claimOne,
  event,
  message,
  newRef,
  newSession,
  snapshotOf,
} from "../../builders/sessions.ts";
import { all } from "../../contracts/session-log/rig.ts";
import { describeSessionLog } from "../../contracts/session-log/suite.ts";

const common = { clock: systemClock, rng: systemRng };

describeSessionLog("file", async (timings) => {
  const directory = await newDirectory();
  const backend = await openFileBackend({ directory, ...common });
  const store = assembleStore({ ...common, backend, timings });
  return {
    store,
    backend,
    pass: (ms: number) => systemClock.sleep(ms),
    traces: async (ref) => {
      const names = await readdir(directory, { recursive: true });
      return names.filter((name) => name.includes(ref.id));
    },
    close: async () => {
      await store.close();
      await rm(directory, { recursive: true });
    },
  };
});

describe("the file store across processes", () => {
  let directory: string;
  let stores: SessionStore[] = [];

  beforeEach(async () => {
    directory = await newDirectory();
    stores = [];
  });

  afterEach(async () => {
    await Promise.all(stores.map((store) => store.close()));
    await rm(directory, { recursive: true, force: true });
  });

  async function openStore(): Promise<SessionStore> {
    const store = await openFileSessionStore({ directory, ...common });
    stores.push(store);
    return store;
  }

  it.each([5, 60, 200])(
    "after kill -9 in the middle of appends (%d acknowledged) nothing acknowledged is missing and the session goes on at once",
    async (acks) => {
      const ref = newRef();
      const acked = await runChildUntil(directory, ref, acks);

      const store = await openStore();

      const events = await all(store.log.getEvents(ref));
      expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1));
      for (const { seq, id } of acked) expect(events[seq - 1]?.id).toBe(id);
      const repeated = acked.find(({ key }) => key !== undefined);
      const again = { idempotencyKey: repeated?.key ?? "" };
      expect(await store.log.emitEvents(ref, [message("again")], again)).toMatchObject({
        first: repeated?.seq,
        duplicate: true,
      });
      const before = systemClock.monotonic();
      const lease = await claimOne(store);
      expect(systemClock.monotonic() - before).toBeLessThan(400);
      expect(lease).toMatchObject({ ref, epoch: 2, takeover: 1 });
    },
  );

  it("everything a store knows is there when it is opened again", async () => {
    const store = await openStore();
    const [ref, deleted] = [newRef(), newRef()];
    await store.log.createSession(newSession(ref));
    await store.log.createSession(newSession(deleted));
    await store.operator.deleteSession(deleted);
    await store.log.emitEvents(ref, [message("x".repeat(100_000))], { idempotencyKey: "k" });
    const lease = await claimOne(store);
    await all(lease.getEvents());
    await lease.emitEvents([event("sandbox.requested", { hand: "main", generation: 1 })]);
    await lease.release({ kind: "idle", why: "end_turn" });
    const binding = {
      sessionId: ref.id,
      tenant: ref.tenant,
      hand: "main",
      generation: 1,
      ip: "::1",
    };
    await store.operator.bindSandbox("pod", binding);
    const pool = { uid: "u", name: "default", partitions: 4, commit: { mode: "fsync" } } as const;
    const registered = await store.operator.registerPool(pool);
    const events = await all(store.log.getEvents(ref));
    await store.close();

    const again = await openStore();

    expect(await again.log.getSession(ref)).toMatchObject({
      head: { status: "idle", why: "end_turn", pos: { seq: 3 } },
      snapshot: snapshotOf(ref),
    });
    expect(await all(again.log.getEvents(ref))).toEqual(events);
    expect(await again.log.getSession(deleted)).toBeNull();
    const signal = AbortSignal.timeout(5000);
    expect(await first(again.operator.requests(signal))).toMatchObject({ ref, hand: "main" });
    expect(await first(again.operator.changes(signal))).toMatchObject({ ref, status: "idle" });
    expect(await again.ports.readBinding("pod")).toEqual(binding);
    expect(await again.operator.registerPool(pool)).toEqual(registered);
    await again.log.emitEvents(ref, [message("go on")], { idempotencyKey: "l" });
    expect(await claimOne(again)).toMatchObject({ epoch: 2, takeover: 0 });
  });

  it.each([
    { name: "half a record", damage: (whole: Buffer) => whole.subarray(0, whole.length - 7) },
    { name: "a length without a record", damage: () => Buffer.from("120 00112233 ") },
    { name: "a record with a wrong check sum", damage: (whole: Buffer) => flipLast(whole) },
    { name: "noise", damage: () => Buffer.from([0, 0, 0, 255, 10, 10]) },
  ])("$name at the end of a file is cut off, and the log goes on behind it", async ({ damage }) => {
    const store = await openStore();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    await store.log.emitEvents(ref, [message("kept")], { idempotencyKey: "k" });
    await store.close();
    const path = await fileOf(directory, ref);
    const whole = await readFile(path);
    const lines = whole.toString("latin1").split("\n");
    const lastLine = Buffer.from(`${lines.at(-2)}\n`, "latin1");
    await appendFile(path, damage(lastLine));

    const again = await openStore();

    expect((await stat(path)).size).toBe(whole.length);
    const cut = await readFile(`${path}.cut-at-${whole.length}`);
    expect(cut).toEqual(damage(lastLine));
    await again.log.emitEvents(ref, [message("next")], { idempotencyKey: "l" });
    await again.close();
    const third = await openStore();
    expect((await all(third.log.getEvents(ref))).map(({ seq }) => seq)).toEqual([1, 2, 3]);
    await third.operator.deleteSession(ref);
    expect(await readdir(join(path, ".."))).toEqual([]);
  });

  it.each([
    { name: "the first record", at: (lines: number[]) => 30 + (lines[0] ?? 0) },
    { name: "the length of the first record", at: () => 0 },
    { name: "a record in the middle", at: (lines: number[]) => 40 + (lines[50] ?? 0) },
    { name: "the length of one in the middle", at: (lines: number[]) => lines[50] ?? 0 },
    { name: "the check sum of one in the middle", at: (lines: number[]) => 6 + (lines[50] ?? 0) },
    { name: "the end of one in the middle", at: (lines: number[]) => (lines[51] ?? 0) - 1 },
    { name: "the end of the last but one", at: (lines: number[]) => (lines.at(-1) ?? 0) - 1 },
    { name: "the last but one", at: (lines: number[]) => 40 + (lines.at(-2) ?? 0) },
  ])("one bit of $name refuses that session, says where, and changes nothing", async ({ at }) => {
    const store = await openStore();
    const [ref, other] = [newRef(), newRef()];
    for (const each of [ref, other]) {
      await store.log.createSession(newSession(each));
      for (let i = 0; i < 100; i += 1) {
        await store.log.emitEvents(each, [message(`${i}`)], { idempotencyKey: `k${i}` });
      }
    }
    await store.close();
    const path = await fileOf(directory, ref);
    const bytes = await readFile(path);
    const starts = [0, ...[...bytes.entries()].flatMap(([i, b]) => (b === 10 ? [i + 1] : []))];
    const lines = starts.slice(0, -1);
    const flipped = at(lines);
    bytes[flipped] = (bytes[flipped] ?? 0) ^ 1;
    await writeFile(path, bytes);
    const damagedLine = lines.findLast((start) => start <= flipped);

    const again = await openStore();

    const refused = { code: "LOG_DAMAGED", message: expect.stringContaining(path) };
    await expect(again.log.getSession(ref)).rejects.toMatchObject(refused);
    await expect(all(again.log.getEvents(ref))).rejects.toMatchObject({
      ...refused,
      details: { path, offset: damagedLine },
    });
    await expect(again.log.createSession(newSession(ref))).rejects.toMatchObject(refused);
    const append = again.log.emitEvents(ref, [message("next")], { idempotencyKey: "next" });
    await expect(append).rejects.toThrow("Put the file back from a backup, or move it away");
    expect(await all(again.log.getEvents(other))).toHaveLength(101);
    expect(await claimOne(again)).toMatchObject({ ref: other });
    await again.close();
    expect(await readFile(path)).toEqual(bytes);
  });

  it("one bit of a session's only event refuses it: it was acknowledged", async () => {
    const store = await openStore();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    await store.close();
    const path = await fileOf(directory, ref);
    const bytes = await readFile(path);
    bytes[bytes.length - 9] = (bytes.at(-9) ?? 0) ^ 1;
    await writeFile(path, bytes);

    const again = await openStore();

    await expect(again.log.getSession(ref)).rejects.toMatchObject({ code: "LOG_DAMAGED" });
    expect(await readFile(path)).toEqual(bytes);
  });

  it("a session whose creation was torn does not exist and can be created", async () => {
    const store = await openStore();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    await store.close();
    const path = await fileOf(directory, ref);
    await writeFile(path, (await readFile(path)).subarray(0, 40));

    const again = await openStore();

    expect(await again.log.getSession(ref)).toBeNull();
    expect(await again.log.createSession(newSession(ref))).toMatchObject({ created: true });
    expect((await stat(`${path}.cut-at-0`)).size).toBe(40);
  });

  it("a session whose creation left nothing but zeros does not exist either", async () => {
    const store = await openStore();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    await store.close();
    await writeFile(await fileOf(directory, ref), Buffer.alloc(4096));

    const again = await openStore();

    expect(await again.log.getSession(ref)).toBeNull();
  });

  it("a directory in use is refused with the pid that uses it", async () => {
    await openStore();

    const refused = openFileSessionStore({ directory, ...common });

    await expect(refused).rejects.toMatchObject({
      code: "LOG_DIRECTORY_IN_USE",
      message: expect.stringContaining(`process ${process.pid}`),
    });
    await expect(refused).rejects.toMatchObject({ message: expect.stringContaining(directory) });
  });

  it.each([
    { name: "a process that is gone", lock: { pid: 2 ** 22 - 3, started: "x:1" } },
    { name: "an earlier process with the same pid", lock: { pid: process.pid, started: "x:1" } },
  ])("the lock of $name is taken over", async ({ lock }) => {
    await writeFile(join(directory, "lock"), JSON.stringify(lock));

    await openStore();

    expect(JSON.parse(await readFile(join(directory, "lock"), "utf8")).pid).toBe(process.pid);
    expect(await readdir(directory)).toEqual(["lock", "sessions"]);
  });

  it("of several that take over the same stale lock one gets the directory", async () => {
    await writeFile(join(directory, "lock"), "not json");

    const results = await Promise.allSettled(Array.from({ length: 2 }, () => openStore()));

    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  });

  it("an append that cannot be written is not acknowledged, nor is any after it", async () => {
    const store = await openStore();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const path = await fileOf(directory, ref);
    await rm(path);
    await rm(join(path, ".."), { recursive: true });
    await writeFile(join(path, ".."), "in the way");

    const failed = await code(store.log.emitEvents(ref, [message("a")], { idempotencyKey: "a" }));
    const later = await code(store.log.emitEvents(ref, [message("b")], { idempotencyKey: "b" }));

    expect([failed, later]).toEqual(["UNAVAILABLE", "UNAVAILABLE"]);
  });
});

it("a file of a version that knew no chain values is read and written on", async () => {
  const directory = await newDirectory();
  const ref = newRef();
  const before = await openFileSessionStore({ directory, ...common });
  await before.log.createSession(newSession(ref));
  await before.close();
  const file = await fileOf(directory, ref);
  const records = decodeRecords(await readFile(file)).records.map((json) =>
    json.replaceAll(/,"(?:chain|ch)":"[0-9a-f:]*"/g, ""),
  );
  expect(records.join()).not.toContain("chain");
  await writeFile(file, Buffer.concat(records.map(encodeRecord)));

  const after = await openFileSessionStore({ directory, ...common });
  await after.log.emitEvents(ref, [message("later")], { idempotencyKey: "k" });
  const chains = (await all(after.log.getEvents(ref))).map(({ chain }) => chain);
  await after.close();
  await rm(directory, { recursive: true });

  expect(chains).toEqual(["", expect.stringMatching(/^[0-9a-f]{16}$/)]);
});

interface Acked {
  seq: number;
  id: string;
  key: string | undefined;
}

/** What the child had acknowledged when it was killed. */
async function runChildUntil(directory: string, ref: SessionRef, acks: number): Promise<Acked[]> {
  const program = join(import.meta.dirname, "file-child.ts");
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "pipe", "inherit"] });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.stdin.write(`${JSON.stringify({ directory, ref })}\n`);
  const acked: Acked[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    const [word, seq, id = "", key] = line.split(" ");
    if (word === "acked") acked.push({ seq: Number(seq), id, key });
    if (acked.length >= acks) child.kill("SIGKILL");
  }
  await gone;
  return acked;
}

async function newDirectory(): Promise<string> {
  return await mkdtemp(join(tmpdir(), "drover-file-log-"));
}

async function fileOf(directory: string, ref: SessionRef): Promise<string> {
  const names = await readdir(directory, { recursive: true });
  return join(directory, names.find((name) => name.endsWith(`${ref.id}.log`)) ?? "missing");
}

async function first<T>(source: AsyncIterable<T>): Promise<T | undefined> {
  for await (const item of source) return item;
  return undefined;
}

async function code(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => codeOf(error),
  );
}

function flipLast(record: Buffer): Buffer {
  const copy = Buffer.from(record);
  copy[copy.length - 3] = (copy[copy.length - 3] ?? 0) ^ 1;
  return copy;
}
