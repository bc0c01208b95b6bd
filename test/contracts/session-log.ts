import { afterEach, describe, expect, it } from "@jest/globals";
import { parseExact } from "../../src/protocol/exact-json.ts";
import { hasCode } from "../../src/runtime/errors.ts";
import type { LogBackend } from "../../src/sessions/backend.ts";
import type {
  Lease,
  PoolKey,
  SessionRef,
  SessionStore,
  StateChange,
  StoredEvent,
  TailItem,
  WakeQueue,
} from "../../src/sessions/session-log.ts";
import {
  event,
  FIXTURE_POOL,
  message,
  newRef,
  newSession,
  snapshotOf,
} from "../fakes/session-fixtures.ts";

/** A store for one test, and a way to let its time pass. */
export interface StoreUnderTest {
  store: SessionStore;
  backend: LogBackend;
  /** Lets `ms` of the store's time pass; other promises get their turn meanwhile. */
  pass: (ms: number) => Promise<void>;
  /** Names of whatever the store still keeps of a session; for the test of deletion. */
  traces: (ref: SessionRef) => Promise<string[]>;
  close(): Promise<void>;
}

export const CONTRACT_POOLS: PoolKey[] = [FIXTURE_POOL];
/** Leases in these tests; short, because some stores live in real time. */
export const CONTRACT_TIMINGS = { ttlMs: 400, renewMs: 100, pollMs: 20 };
const DEADLINE_MS = 8000;

/** What every implementation of the session log must do: run by the test file of each. */
export function describeSessionLog(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`the session log (${name})`, () => {
    let opened: StoreUnderTest | undefined;
    const stop = new AbortController();

    afterEach(async () => {
      await opened?.close();
      opened = undefined;
    });

    async function setUp() {
      opened = await open();
      const { store, backend, pass, traces } = opened;
      const bench = new Bench(opened);
      return { store, log: store.log, operator: store.operator, backend, pass, traces, bench };
    }

    describe("creation and external appends", () => {
      it("a created session holds its first events, its snapshot and status created", async () => {
        const { log } = await setUp();
        const ref = newRef();
        const session = newSession(ref, { events: [message("one"), message("two")] });

        const { created, head } = await log.createSession(session);

        expect(created).toBe(true);
        expect(head).toMatchObject({ status: "created", why: "", pos: { seq: 2 } });
        expect(head.pos.id).toBe(session.events[1]?.id);
        expect(await log.getSession(ref)).toEqual({ head, snapshot: snapshotOf(ref) });
        const events = await all(log.getEvents(ref));
        expect(
          events.map(({ seq, id, type, epoch, data }) => ({ seq, id, type, epoch, data })),
        ).toEqual(session.events.map((each, i) => ({ seq: i + 1, epoch: 0, ...each })));
      });

      it("creating again changes nothing and answers the log as it is", async () => {
        const { log } = await setUp();
        const ref = newRef();
        const first = await log.createSession(newSession(ref));

        const again = await log.createSession(newSession(ref, { events: [message("other")] }));

        expect(again).toEqual({ created: false, head: first.head });
      });

      it("a session can start without events", async () => {
        const { log } = await setUp();
        const ref = newRef();

        const { head } = await log.createSession(newSession(ref, { events: [], wake: false }));

        expect(head.pos).toEqual({ seq: 0, id: "" });
        expect(await all(log.getEvents(ref))).toEqual([]);
      });

      it("appends are contiguous, in order, and their times never go back", async () => {
        const { log } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));

        const appends = await Promise.all(
          Array.from({ length: 20 }, (_, i) =>
            log.emitEvents(ref, [message(`${i}a`), message(`${i}b`)], { idempotencyKey: `k${i}` }),
          ),
        );

        const events = await all(log.getEvents(ref));
        expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 41 }, (_, i) => i + 1));
        expect(appends.every(({ first, last }) => last === first + 1)).toBe(true);
        expect(events.every(({ ts }, i) => ts >= (events[i - 1]?.ts ?? 0))).toBe(true);
      });

      it("a repeated idempotency key answers the earlier place and appends nothing", async () => {
        const { log } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const batch = [message("a"), message("b")];
        const first = await log.emitEvents(ref, batch, { idempotencyKey: "k" });
        await log.emitEvents(ref, [message("c")], { idempotencyKey: "l" });

        const again = await log.emitEvents(ref, batch, { idempotencyKey: "k" });

        expect(first).toEqual({ first: 2, last: 3, duplicate: false });
        expect(again).toEqual({ first: 2, last: 3, duplicate: true });
        expect(await all(log.getEvents(ref))).toHaveLength(4);
      });

      it("an unknown session is SESSION_NOT_FOUND for every verb", async () => {
        const { log, operator, backend } = await setUp();
        const ref = newRef();

        expect(await codeOf(log.emitEvents(ref, [message("x")], { idempotencyKey: "k" }))).toBe(
          "SESSION_NOT_FOUND",
        );
        expect(await codeOf(log.wake(ref))).toBe("SESSION_NOT_FOUND");
        expect(await codeOf(all(log.getEvents(ref)))).toBe("SESSION_NOT_FOUND");
        expect(await log.getSession(ref)).toBeNull();
        expect(await operator.statusOf([ref])).toEqual([null]);
        expect(await operator.snapshotOf(ref)).toBeNull();
        expect(
          await backend.release(ref, { token: "1.x", seen: 0, release: { kind: "requeue" } }),
        ).toEqual({
          word: "NOSESSION",
        });
      });

      it("an event or a batch over the limit is refused with its size, and nothing is written", async () => {
        const { log } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const big = message("x".repeat(256 * 1024));
        const many = Array.from({ length: 5 }, () => message("x".repeat(250 * 1024)));

        const single = await errorOf(log.emitEvents(ref, [big], { idempotencyKey: "a" }));
        const batch = await errorOf(log.emitEvents(ref, many, { idempotencyKey: "b" }));

        expect(hasCode(single, "SESSION_EVENT_TOO_LARGE")).toBe(true);
        expect(String(single)).toContain("262144");
        expect(hasCode(batch, "SESSION_EVENT_TOO_LARGE")).toBe(true);
        expect(String(batch)).toContain("1048576");
        expect(await all(log.getEvents(ref))).toHaveLength(1);
      });

      it("large events come back whole", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        const long = message(`${"ä€𝄞\n".repeat(20_000)}end`);
        await log.createSession(newSession(ref, { events: [long] }));
        const batch = Array.from({ length: 4 }, (_, i) => message(`${i}${"y".repeat(240 * 1024)}`));
        await log.emitEvents(ref, batch, { idempotencyKey: "k" });
        const lease = await bench.worker("w1").claimOne();
        const own = event("tool.result", { content: "z".repeat(100_000) });
        await bench.readAll(lease);
        await lease.emitEvents([own]);

        const events = await all(log.getEvents(ref));

        expect(events.map(({ data }) => data)).toEqual(
          [long, ...batch, own].map(({ data }) => data),
        );
      });

      it("unusual text, numbers and empty containers survive", async () => {
        const { log } = await setUp();
        const ref = newRef();
        const odd = event("session.created", {
          text: '\u0000\u001f"\\\u2028 \ud83d\ude00',
          big: 2 ** 53 - 1,
          small: -1.5e-7,
          list: [],
          map: {},
          nothing: null,
        });

        await log.createSession(newSession(ref, { events: [odd] }));

        expect((await all(log.getEvents(ref)))[0]?.data).toEqual(odd.data);
      });

      it("numbers keep their digits, through every reader", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        const text = '{"id":1234567890123456789,"price":10.0,"far":[1e400,{"small":-0}]}';
        const exact = event("user.message", { content: [], input: parseExact(text) });

        await log.createSession(newSession(ref));
        await log.emitEvents(ref, [exact], { idempotencyKey: exact.id });
        await operator.emitEvents(ref, [exact], { idempotencyKey: `${exact.id}-again` });
        const lease = await bench.worker("a").claimOne();
        await lease.emitEvents([{ ...exact, id: `${exact.id}-3` }], {});

        const inputs = async (events: AsyncIterable<StoredEvent>) =>
          (await all(events)).flatMap(({ data }) =>
            isRecord(data) && data["input"] !== undefined ? [JSON.stringify(data["input"])] : [],
          );
        expect(await inputs(log.getEvents(ref))).toEqual([text, text, text]);
        expect(await inputs(lease.getEvents())).toEqual([text, text, text]);
      });
    });

    describe("reading", () => {
      it("slices of the log are read forwards and backwards between exclusive bounds", async () => {
        const { log } = await setUp();
        const ref = newRef();
        const events = Array.from({ length: 12 }, (_, i) => message(`${i + 1}`));
        await log.createSession(newSession(ref, { events }));
        const seqs = async (query: Parameters<typeof log.getEvents>[1]) =>
          (await all(log.getEvents(ref, query))).map(({ seq }) => seq);

        expect(await seqs({ after: 3, before: 7 })).toEqual([4, 5, 6]);
        expect(await seqs({ after: 3, before: 7, reverse: true })).toEqual([6, 5, 4]);
        expect(await seqs({ reverse: true, limit: 3 })).toEqual([12, 11, 10]);
        expect(await seqs({ after: 10, limit: 5 })).toEqual([11, 12]);
        expect(await seqs({ after: 12 })).toEqual([]);
        expect(await seqs({ after: 40 })).toEqual([]);
        expect(await seqs({ before: 1 })).toEqual([]);
        expect(await seqs({ after: 7, before: 7 })).toEqual([]);
        expect(await seqs({ limit: 0 })).toEqual([]);
      });

      it("a look through a log may leave out the data of other types", async () => {
        const { log } = await setUp();
        const ref = newRef();
        const events = [message("a"), event("sandbox.lost", { generation: 1 }), message("b")];
        await log.createSession(newSession(ref, { events }));
        const dataOf = new Set(["sandbox.lost"]);

        const found = await all(log.getEvents(ref, { dataOf }));

        expect(found.map(({ type }) => type)).toEqual(events.map(({ type }) => type));
        expect(found[1]?.data).toEqual({ generation: 1 });
      });

      it("a log longer than a page is read whole in both directions", async () => {
        const { log } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref, { events: [] }));
        for (let i = 0; i < 4; i += 1) {
          const batch = Array.from({ length: 300 }, (_, j) => message(`${i * 300 + j}`));
          await log.emitEvents(ref, batch, { idempotencyKey: `${i}`, durability: "applied" });
        }

        const forwards = (await all(log.getEvents(ref))).map(({ seq }) => seq);
        const backwards = (await all(log.getEvents(ref, { reverse: true }))).map(({ seq }) => seq);

        expect(forwards).toEqual(Array.from({ length: 1200 }, (_, i) => i + 1));
        expect(backwards).toEqual(forwards.toReversed());
      });
    });

    describe("claims", () => {
      it("a woken session is claimed by exactly one of several workers", async () => {
        const { log, bench } = await setUp();
        const refs = Array.from({ length: 12 }, () => newRef());
        for (const ref of refs) await log.createSession(newSession(ref));
        const workers = ["a", "b", "c"].map((id) => bench.worker(id));

        const taken = (await Promise.all(workers.map((worker) => worker.tryClaim(12, 300)))).flat();

        expect(taken.map(({ ref }) => ref.id).toSorted()).toEqual(
          refs.map(({ id }) => id).toSorted(),
        );
      });

      it("claims stop at the worker's capacity", async () => {
        const { log, bench } = await setUp();
        for (let i = 0; i < 9; i += 1) await log.createSession(newSession(newRef()));

        const first = await bench.worker("a").tryClaim(3, 300);
        const second = await bench.worker("b").tryClaim(9, 300);

        expect(first).toHaveLength(3);
        expect(second).toHaveLength(6);
      });

      it("a session created asleep is claimed only after a wake", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref, { wake: false }));
        const worker = bench.worker("a");
        expect(await worker.tryClaim(1, 100)).toEqual([]);

        await log.wake(ref);

        const lease = await worker.claimOne();
        expect(lease).toMatchObject({ ref, epoch: 1, takeover: 0 });
      });

      it("a held lease is renewed for as long as the worker lives", async () => {
        const { log, bench, pass } = await setUp();
        await log.createSession(newSession(newRef()));
        const lease = await bench.worker("a").claimOne();

        await pass(CONTRACT_TIMINGS.ttlMs * 3);

        expect(await bench.worker("b").tryClaim(1, 100)).toEqual([]);
        await lease.barrier();
        expect(lease.lost.aborted).toBe(false);
        expect(lease.fresh()).toBe(true);
      });

      it("a lease that is renewed no more stops being fresh before another worker can take it", async () => {
        const { log, bench, pass } = await setUp();
        await log.createSession(newSession(newRef()));
        const holder = bench.worker("a");
        const lease = await holder.claimOne();
        expect(lease.fresh()).toBe(true);

        await holder.die();
        await pass(CONTRACT_TIMINGS.ttlMs);

        expect(lease.fresh()).toBe(false);
      });

      it("another worker takes over when the holder dies, and the dead one's writes are refused", async () => {
        const { log, bench } = await setUp();
        await log.createSession(newSession(newRef()));
        const dead = bench.worker("a");
        const zombie = await dead.claimOne();
        await bench.readAll(zombie);
        await dead.die();

        const heir = await bench.worker("b").claimOne();

        expect(heir).toMatchObject({ epoch: 2, takeover: 1 });
        expect(await codeOf(zombie.emitEvents([event("tool.result", {})]))).toBe(
          "SESSION_LEASE_LOST",
        );
        expect(zombie.lost.aborted).toBe(true);
        expect(await codeOf(zombie.release({ kind: "requeue" }))).toBe("SESSION_LEASE_LOST");
      });

      it("a holder that was paused learns of its loss from the next renewal", async () => {
        const { store, log, bench, backend, pass } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await backend.release(ref, { token: lease.token, seen: 1, release: { kind: "requeue" } });
        const heir = bench.wrap(store.queue("b"));
        await heir.claimOne();

        await pass(CONTRACT_TIMINGS.renewMs * 3);

        expect(lease.lost.aborted).toBe(true);
      });

      it("ports tell the holder, and nothing about a session that is not there", async () => {
        const { store, log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("pod-uid").claimOne();

        expect(await store.ports.readLease(ref.tenant, ref.id)).toEqual({
          token: lease.token,
          epoch: 1,
          owner: "pod-uid",
          terminated: false,
        });
        expect(await store.ports.readSnapshot(ref.tenant, ref.id)).toEqual(snapshotOf(ref));
        expect(await store.ports.readLease("other", ref.id)).toBeNull();
        expect(await store.ports.readSnapshot("other", ref.id)).toBeNull();
      });

      it("workers that claim are listed", async () => {
        const { store, bench } = await setUp();
        await bench.worker("pod-1").tryClaim(1, 60);

        expect((await store.queue("x").workers()).map(({ id }) => id)).toEqual(["pod-1"]);
      });
    });

    describe("writing under a lease", () => {
      it("the first append after a claim makes the session running, and entries carry the epoch", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);

        const result = await lease.emitEvents([
          event("model.request_start"),
          event("model.request_end"),
        ]);

        expect(result).toEqual({
          status: "ok",
          first: 2,
          last: 3,
          interleaved: false,
          duplicate: false,
        });
        expect(lease.position().seq).toBe(3);
        expect((await log.getSession(ref))?.head.status).toBe("running");
        expect((await all(log.getEvents(ref))).map(({ epoch }) => epoch)).toEqual([0, 1, 1]);
      });

      it("appends in flight together keep their order", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        const batches = Array.from({ length: 25 }, (_, i) => event("tool.result", { i }));

        await Promise.all(
          batches.map((each, i) =>
            lease.emitEvents([each], { durability: i % 2 === 0 ? "applied" : "committed" }),
          ),
        );

        const ids = (await all(log.getEvents(ref))).slice(1).map(({ id }) => id);
        expect(ids).toEqual(batches.map(({ id }) => id));
      });

      it("a batch sent again answers its first place and is not appended twice", async () => {
        const { log, bench, backend } = await setUp();
        const ref = newRef();
        const { head } = await log.createSession(newSession(ref));
        const { token } = await bench.worker("a").claimOne();
        const op = {
          token,
          n: 1,
          prev: head.pos,
          onlyIfTail: false,
          release: null,
          events: [event("tool.result"), event("tool.result")],
        };
        const options = { durability: "committed", signal: stop.signal } as const;

        const first = await backend.appendLeased(ref, op, options);
        await log.emitEvents(ref, [message("between")], { idempotencyKey: "k" });
        const again = await backend.appendLeased(ref, op, options);

        expect(first).toEqual({ word: "OK", first: 2, last: 3 });
        expect(again).toEqual({ word: "DUP", first: 2, last: 3 });
        expect(await all(log.getEvents(ref))).toHaveLength(4);
      });

      it("a batch that released the session is recognised when it is sent again", async () => {
        const { log, bench, backend } = await setUp();
        const ref = newRef();
        const { head } = await log.createSession(newSession(ref));
        const { token } = await bench.worker("a").claimOne();
        const op = {
          token,
          n: 1,
          prev: head.pos,
          onlyIfTail: true,
          release: { kind: "idle", why: "end_turn" },
          events: [event("session.status_idle")],
        } as const;
        const options = { durability: "committed", signal: stop.signal } as const;

        await backend.appendLeased(ref, op, options);

        expect(await backend.appendLeased(ref, op, options)).toEqual({
          word: "DUP",
          first: 2,
          last: 2,
        });
        const repeat = { token, seen: 2, release: { kind: "idle", why: "end_turn" } } as const;
        expect(await backend.release(ref, repeat)).toEqual({ word: "OK" });
      });

      it.each([
        { name: "the tail has another id", prev: { seq: 1, id: "sevt_other" }, n: 1 },
        { name: "the log is shorter than what was read", prev: { seq: 9, id: "sevt_9" }, n: 1 },
        { name: "the batch ordinal leaves a gap", prev: { seq: 0, id: "" }, n: 2 },
      ])("a write is REWOUND when $name", async ({ prev, n }) => {
        const { log, bench, backend } = await setUp();
        const ref = newRef();
        const { head } = await log.createSession(newSession(ref));
        const { token } = await bench.worker("a").claimOne();

        const reply = await backend.appendLeased(
          ref,
          { token, n, prev, onlyIfTail: false, release: null, events: [event("tool.result")] },
          { durability: "applied", signal: stop.signal },
        );

        expect(reply).toEqual({ word: "REWOUND", tail: head.pos });
        expect(await all(log.getEvents(ref))).toHaveLength(1);
      });

      it("a write is REWOUND when an entry below the tail has another id", async () => {
        const { log, bench, backend } = await setUp();
        const ref = newRef();
        const events = [message("1"), message("2"), message("3")];
        await log.createSession(newSession(ref, { events }));
        const { token } = await bench.worker("a").claimOne();
        const write = (prev: { seq: number; id: string }) =>
          backend.appendLeased(
            ref,
            { token, n: 1, prev, onlyIfTail: false, release: null, events: [event("tool.result")] },
            { durability: "applied", signal: stop.signal },
          );

        expect(await write({ seq: 2, id: "sevt_other" })).toMatchObject({ word: "REWOUND" });
        expect(
          await backend.barrier(ref, { token, prev: { seq: 2, id: "sevt_other" } }),
        ).toMatchObject({
          word: "REWOUND",
        });
        expect(await write({ seq: 2, id: events[1]?.id ?? "" })).toMatchObject({ word: "OK" });
      });

      it("events of others before an append are reported, and stopping waits until they are read", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });

        const appended = await lease.emitEvents([event("tool.result")]);
        const early = await lease.emitEvents([event("session.status_idle")], {
          onlyIfTail: true,
          release: { kind: "idle", why: "end_turn" },
        });
        const read = await all(lease.getEvents({ after: 1 }));
        const late = await lease.emitEvents([event("session.status_idle")], {
          onlyIfTail: true,
          release: { kind: "idle", why: "end_turn" },
        });

        expect(appended).toMatchObject({ status: "ok", first: 3, interleaved: true });
        expect(early).toEqual({ status: "more", tail: 3 });
        expect(read.map(({ seq }) => seq)).toEqual([2, 3]);
        expect(late).toMatchObject({ status: "ok", first: 4 });
      });

      it("an append that asks for the tail writes nothing when something arrived", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });

        const result = await lease.emitEvents([event("session.status_idle")], { onlyIfTail: true });

        expect(result).toEqual({ status: "more", tail: 2 });
        expect(await all(log.getEvents(ref))).toHaveLength(2);
      });

      it("a barrier proves the lease and what was read", async () => {
        const { log, bench } = await setUp();
        await log.createSession(newSession(newRef()));
        const first = bench.worker("a");
        const lease = await first.claimOne();
        await bench.readAll(lease);
        await lease.barrier();
        await first.die();
        await bench.worker("b").claimOne();

        expect(await codeOf(lease.barrier())).toBe("SESSION_LEASE_LOST");
      });

      it("listeners hear of events of others but not of the holder's own", async () => {
        const { log, bench, pass } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        const heard: number[] = [];
        const off = lease.onEvents((tail) => heard.push(tail));
        await pass(CONTRACT_TIMINGS.renewMs);

        await lease.emitEvents([event("tool.result")]);
        await pass(CONTRACT_TIMINGS.renewMs * 3);
        const own = [...heard];
        await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });
        await bench.until(() => heard.length > 0);

        off();
        expect(own).toEqual([]);
        expect(heard).toEqual([3]);
      });

      it("sessions that were claimed together each hear of their own log, not of each other's", async () => {
        const { log, bench, pass } = await setUp();
        const [a, b] = [newRef(), newRef()];
        for (const ref of [a, b]) await log.createSession(newSession(ref));
        const heard = new Map<string, number>();
        for (const lease of await bench.worker("a").tryClaim(2, 1000)) {
          await bench.readAll(lease);
          lease.onEvents((tail) => heard.set(lease.ref.id, tail));
        }

        const tails: number[] = [];
        for (const [ref, count] of [
          [a, 3],
          [b, 3],
          [b, 2],
          [a, 1],
        ] as const) {
          const events = Array.from({ length: count }, () => message("more"));
          const { last } = await log.emitEvents(ref, events, { idempotencyKey: `${tails.length}` });
          await bench.until(() => heard.get(ref.id) === last);
          await pass(CONTRACT_TIMINGS.renewMs * 3);
          tails.push(heard.get(ref.id) ?? 0);
        }

        expect(tails).toEqual([4, 4, 6, 5]);
      });
    });

    describe("giving up a lease", () => {
      it("an idle session waits for the next message", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const worker = bench.worker("a");
        const lease = await worker.claimOne();
        await bench.readAll(lease);

        expect(await lease.release({ kind: "idle", why: "end_turn" })).toBe("released");

        expect((await log.getSession(ref))?.head).toMatchObject({
          status: "idle",
          why: "end_turn",
        });
        expect(await worker.tryClaim(1, 100)).toEqual([]);
        await log.emitEvents(ref, [message("go on")], { idempotencyKey: "k" });
        expect(await worker.claimOne()).toMatchObject({ ref, epoch: 2, takeover: 0 });
        expect(await codeOf(lease.emitEvents([event("tool.result")]))).toBe("SESSION_LEASE_LOST");
      });

      it("an unread message keeps the lease of a worker that wants to be idle", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });

        expect(await lease.release({ kind: "idle", why: "end_turn" })).toBe("more");

        await bench.readAll(lease);
        expect(await lease.release({ kind: "idle", why: "end_turn" })).toBe("released");
      });

      it("an event that gives nothing to do does not wake", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const worker = bench.worker("a");
        const lease = await worker.claimOne();
        await bench.readAll(lease);
        await lease.release({ kind: "idle", why: "end_turn" });

        await log.emitEvents(ref, [event("sandbox.released", { hand: "main", generation: 1 })], {
          idempotencyKey: "k",
        });

        expect(await worker.tryClaim(1, 150)).toEqual([]);
      });

      it("a handed-over session is claimed by another worker at once, as no takeover", async () => {
        const { log, bench } = await setUp();
        await log.createSession(newSession(newRef()));
        const lease = await bench.worker("a").claimOne();

        await lease.release({ kind: "requeue" });

        expect(await bench.worker("b").claimOne()).toMatchObject({ epoch: 2, takeover: 0 });
      });

      it("an abandoned lease runs out although its worker lives, and its holder drops it", async () => {
        const { log, bench } = await setUp();
        await log.createSession(newSession(newRef()));
        const worker = bench.worker("a");
        const lease = await worker.claimOne();

        lease.abandon();

        expect(lease.lost.aborted).toBe(true);
        await expect(lease.emitEvents([event("tool.result")])).rejects.toMatchObject({
          code: "SESSION_LEASE_LOST",
        });
        expect(await worker.claimOne()).toMatchObject({ epoch: 2, takeover: 1 });
      });

      it("a session that backs off is claimed when its time has come, or earlier by a message", async () => {
        const { log, bench } = await setUp();
        const [slow, early] = [newRef(), newRef()];
        for (const ref of [slow, early]) await log.createSession(newSession(ref));
        const worker = bench.worker("a");
        const leases = await worker.tryClaim(2, 500);
        for (const lease of leases) {
          await bench.readAll(lease);
          await lease.release({ kind: "after", delayMs: 1500 });
        }
        expect(await worker.tryClaim(2, 150)).toEqual([]);

        await log.emitEvents(early, [message("now")], { idempotencyKey: "k" });

        expect((await worker.claimOne()).ref).toEqual(early);
        expect((await worker.claimOne()).ref).toEqual(slow);
      });

      it("a terminated session takes no events, but answers a repeated key", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const sent = [event("session.stop_requested", { reason: "stop" })];
        await log.emitEvents(ref, sent, { idempotencyKey: "k" });
        const worker = bench.worker("a");
        const lease = await worker.claimOne();
        await bench.readAll(lease);
        await lease.emitEvents([event("session.terminated", { reason: "stop" })], {
          durability: "committed",
          release: { kind: "terminated", why: "stop" },
        });

        expect((await log.getSession(ref))?.head).toMatchObject({
          status: "terminated",
          why: "stop",
        });
        expect(await codeOf(log.emitEvents(ref, [message("x")], { idempotencyKey: "l" }))).toBe(
          "SESSION_CLOSED",
        );
        expect(await codeOf(log.wake(ref))).toBe("SESSION_CLOSED");
        expect(await log.emitEvents(ref, sent, { idempotencyKey: "k" })).toMatchObject({
          duplicate: true,
        });
        expect(await worker.tryClaim(1, 100)).toEqual([]);
      });
    });

    describe("control by the operator", () => {
      it("a suspended session is not claimed until it is resumed", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        await operator.emitEvents(ref, [event("session.suspend_requested")], {
          idempotencyKey: "s",
        });
        const worker = bench.worker("a");
        await log.emitEvents(ref, [message("while suspended")], { idempotencyKey: "m" });
        expect(await worker.tryClaim(1, 150)).toEqual([]);
        expect(await operator.statusOf([ref])).toMatchObject([
          { status: "suspended", leased: false },
        ]);

        await operator.emitEvents(ref, [event("session.resume_requested")], {
          idempotencyKey: "r",
        });

        expect((await worker.claimOne()).ref).toEqual(ref);
      });

      it("a holder that suspends gives the session up for good, unless the request to resume has come", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const worker = bench.worker("a");
        const lease = await worker.claimOne();
        await operator.emitEvents(ref, [event("session.suspend_requested")], {
          idempotencyKey: "s",
        });
        await bench.readAll(lease);
        await operator.emitEvents(ref, [event("session.resume_requested")], {
          idempotencyKey: "r",
        });

        expect(await lease.release({ kind: "suspended" })).toBe("released");

        const next = await worker.claimOne();
        await bench.readAll(next);
        expect(await next.release({ kind: "suspended" })).toBe("released");
        expect(await operator.statusOf([ref])).toMatchObject([{ status: "suspended" }]);
        expect(await worker.tryClaim(1, 100)).toEqual([]);
      });

      it("stopping a suspended session lets a worker end it", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        await operator.emitEvents(ref, [event("session.suspend_requested")], {
          idempotencyKey: "s",
        });

        await operator.emitEvents(ref, [event("session.stop_requested", { reason: "stop" })], {
          idempotencyKey: "t",
        });

        expect((await bench.worker("a").claimOne()).ref).toEqual(ref);
      });

      it("a session that ends its worker five times is quarantined, says so, and is lifted by a resume", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        for (let i = 0; i < 5; i += 1) {
          const worker = bench.worker(`w${i}`);
          expect((await worker.claimOne()).takeover).toBe(i);
          await worker.die();
        }
        const finder = bench.worker("finder");

        expect(await finder.tryClaim(1, CONTRACT_TIMINGS.ttlMs * 2)).toEqual([]);

        expect(finder.queue.quarantined()).toBe(1);
        expect(await operator.statusOf([ref])).toMatchObject([
          { status: "quarantined", why: "takeovers", leased: false },
        ]);
        const last = (await all(log.getEvents(ref))).at(-1);
        expect(last).toMatchObject({ type: "session.error", data: { type: "quarantined_error" } });
        await log.emitEvents(ref, [message("hello?")], { idempotencyKey: "m" });
        expect(await finder.tryClaim(1, 100)).toEqual([]);
        await operator.emitEvents(ref, [event("session.resume_requested")], {
          idempotencyKey: "r",
        });
        expect(await finder.claimOne()).toMatchObject({ ref, takeover: 0 });
      });

      it("stopping a quarantined session ends it without a worker", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        for (let i = 0; i < 5; i += 1) {
          const worker = bench.worker(`w${i}`);
          await worker.claimOne();
          await worker.die();
        }
        await bench.worker("finder").tryClaim(1, CONTRACT_TIMINGS.ttlMs * 2);

        await operator.emitEvents(ref, [event("session.stop_requested", { reason: "stop" })], {
          idempotencyKey: "t",
        });

        expect(await operator.statusOf([ref])).toMatchObject([
          { status: "terminated", why: "stop" },
        ]);
      });

      it("progress starts the count of takeovers anew", async () => {
        const { log, bench } = await setUp();
        await log.createSession(newSession(newRef()));
        for (let i = 0; i < 7; i += 1) {
          const worker = bench.worker(`w${i}`);
          const lease = await worker.claimOne();
          expect(lease.takeover).toBe(i === 0 ? 0 : 1);
          await bench.readAll(lease);
          await lease.emitEvents([event("tool.result", {})]);
          await worker.die();
        }
      });

      it("open sandbox requests are told until they are answered", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        const asked = event("sandbox.requested", { hand: "main", generation: 1, template: "node" });
        const dropped = event("sandbox.released", { hand: "old", generation: 3, reason: "x" });
        await lease.emitEvents([asked, dropped]);

        const told = await bench.take(operator.requests.bind(operator), 2);

        expect(told.toSorted((a, b) => (a.kind < b.kind ? 1 : -1))).toEqual([
          { ref, requestId: dropped.id, kind: "release", hand: "old", generation: 3 },
          { ref, requestId: asked.id, kind: "provision", hand: "main", generation: 1 },
        ]);
        for (const request of told) await operator.answered(request);
        expect(await bench.takeFor(operator.requests.bind(operator), 100)).toEqual([]);
      });

      it("a request made while the operator listens arrives", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);

        const listening = bench.take(operator.requests.bind(operator), 1);
        await lease.emitEvents([event("sandbox.requested", { hand: "main", generation: 1 })]);

        expect(await listening).toMatchObject([{ ref, kind: "provision", hand: "main" }]);
      });

      it("what is said only while a session is idle never meets a worker or an unread message", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        const say = async (idempotencyKey: string, at: number) =>
          await operator.emitWhileIdle(ref, [event("sandbox.released")], { idempotencyKey, at });

        expect(await say("held", 1)).toBe("more");
        await lease.release({ kind: "idle", why: "end_turn" });
        await log.emitEvents(ref, [message("second")], { idempotencyKey: "m" });
        expect(await say("outdated", 1)).toBe("more");
        expect(await say("idle", 2)).toEqual({ first: 3, last: 3, duplicate: false });
        expect(await say("idle", 2)).toEqual({ first: 3, last: 3, duplicate: true });

        const types = (await all(log.getEvents(ref))).map(({ type }) => type);
        expect(types).toEqual(["user.message", "user.message", "sandbox.released"]);
      });

      it("state changes of sessions from manifests are told until acknowledged; those of API sessions never", async () => {
        const { log, operator, bench } = await setUp();
        const [ref, api] = [newRef(), newRef()];
        await log.createSession(newSession(ref));
        await log.createSession(newSession(api, { source: "api" }));

        const [created] = await bench.take(operator.changes.bind(operator), 1);

        expect(created).toMatchObject({ ref, status: "created", why: "", seq: 1 });
        await operator.ackState(created as StateChange);
        expect(await bench.takeFor(operator.changes.bind(operator), 100)).toEqual([]);
      });

      it("acknowledging an old state does not lose a newer one", async () => {
        const { log, operator, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const [created] = await bench.take(operator.changes.bind(operator), 1);
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        // The same seq as the change before: only the state differs.
        await lease.release({ kind: "idle", why: "end_turn" });

        await operator.ackState(created as StateChange);

        const [idle] = await bench.take(operator.changes.bind(operator), 1);
        expect(idle).toMatchObject({ ref, status: "idle", why: "end_turn", seq: 1 });
      });

      it("a deleted session is gone, its holder drops it, and deleting again is no error", async () => {
        const { log, operator, bench, traces } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        await log.emitEvents(ref, [message("x".repeat(70_000))], { idempotencyKey: "k" });
        const lease = await bench.worker("a").claimOne();
        await bench.readAll(lease);
        await lease.emitEvents([event("sandbox.requested", { hand: "main", generation: 1 })]);

        await operator.deleteSession(ref);

        expect(await traces(ref)).toEqual([]);
        expect(await log.getSession(ref)).toBeNull();
        expect(await codeOf(lease.emitEvents([event("tool.result")]))).toBe("SESSION_LEASE_LOST");
        expect(await bench.takeFor(operator.requests.bind(operator), 60)).toEqual([]);
        expect(await bench.takeFor(operator.changes.bind(operator), 60)).toEqual([]);
        await operator.deleteSession(ref);
      });

      it("bindings of sandboxes are kept until removed", async () => {
        const { store, log, operator } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const binding = {
          sessionId: ref.id,
          tenant: ref.tenant,
          hand: "main",
          generation: 2,
          ip: "10.0.0.7",
        };

        await operator.bindSandbox("pod-uid", binding);
        expect(await store.ports.readBinding("pod-uid")).toEqual(binding);
        await operator.unbindSandbox("pod-uid");

        expect(await store.ports.readBinding("pod-uid")).toBeNull();
      });

      it("bindings go with their session, and none is made for one that is gone", async () => {
        const { store, log, operator, traces } = await setUp();
        const [ref, other] = [newRef(), newRef()];
        const bind = async (sandboxId: string, { tenant, id }: SessionRef) =>
          await operator.bindSandbox(sandboxId, {
            sessionId: id,
            tenant,
            hand: "main",
            generation: 1,
            ip: "10.0.0.7",
          });
        for (const one of [ref, other]) await log.createSession(newSession(one));
        await bind("pod-1", ref);
        await bind("pod-2", ref);
        await bind("pod-3", other);
        await operator.unbindSandbox("pod-2");

        await operator.deleteSession(ref);
        await bind("pod-4", ref);

        expect(await traces(ref)).toEqual([]);
        const read = async (sandboxId: string) =>
          (await store.ports.readBinding(sandboxId))?.sessionId;
        expect(await Promise.all(["pod-1", "pod-2", "pod-3", "pod-4"].map(read))).toEqual([
          undefined,
          undefined,
          other.id,
          undefined,
        ]);
      });

      it("a pool finds its code again and another pool gets another", async () => {
        const { operator } = await setUp();
        const pool = {
          uid: "uid-1",
          name: "default",
          partitions: 16,
          commit: { mode: "fsync" },
        } as const;

        const first = await operator.registerPool(pool);
        const again = await operator.registerPool(pool);
        const other = await operator.registerPool({ ...pool, uid: "uid-2" });

        expect(first).toMatchObject(pool);
        expect(first.code).toMatch(/^[0-9a-z]{4}$/);
        expect(again.code).toBe(first.code);
        expect(other.code).not.toBe(first.code);
        expect(await operator.poolConfig(first.code)).toEqual(first);
        expect(await operator.poolConfig("none")).toBeNull();
      });
    });

    describe("tailing", () => {
      it("history is followed by live events without gap or repetition", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref, { events: [message("1"), message("2")] }));
        const tail = bench.tail(ref, null);
        await bench.until(() => tail.items.some(({ kind }) => kind === "caught-up"));

        for (let i = 3; i <= 30; i += 1) {
          await log.emitEvents(ref, [message(`${i}`)], { idempotencyKey: `${i}` });
        }
        await bench.until(() => tail.seqs().length >= 30);

        await tail.stop();
        expect(tail.seqs()).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
        expect(tail.items.filter(({ kind }) => kind === "caught-up")).toHaveLength(1);
      });

      it("a reader resumes after the position it has", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        const events = [message("1"), message("2"), message("3")];
        await log.createSession(newSession(ref, { events }));

        const tail = bench.tail(ref, { seq: 2, id: events[1]?.id ?? "" });
        await bench.until(() => tail.items.length >= 2);

        await tail.stop();
        expect(tail.items.map(({ kind }) => kind)).toEqual(["event", "caught-up"]);
        expect(tail.seqs()).toEqual([3]);
      });

      it("a position the log does not have is announced before the log is told again", async () => {
        const { log, bench } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref, { events: [message("1"), message("2")] }));

        const tail = bench.tail(ref, { seq: 2, id: "sevt_lost" });
        await bench.until(() => tail.items.length >= 4);

        await tail.stop();
        expect(tail.items[0]).toEqual({ kind: "rewound", lastGood: { seq: 0, id: "" } });
        expect(tail.seqs()).toEqual([1, 2]);
      });

      it("live text reaches those who asked for it and is not stored", async () => {
        const { log, bench, pass } = await setUp();
        const ref = newRef();
        await log.createSession(newSession(ref));
        const lease = await bench.worker("a").claimOne();
        const [with_, without] = [bench.tail(ref, null, true), bench.tail(ref, null)];
        await bench.until(() => [with_, without].every(({ items }) => items.length >= 2));
        await pass(200);

        lease.publishDelta("sevt_x", 0, "Hel");
        lease.publishDelta("sevt_x", 3, "lo");
        await bench.until(() => with_.items.length >= 4);

        await Promise.all([with_.stop(), without.stop()]);
        expect(with_.items.slice(2)).toEqual([
          { kind: "delta", eventId: "sevt_x", off: 0, text: "Hel" },
          { kind: "delta", eventId: "sevt_x", off: 3, text: "lo" },
        ]);
        expect(without.items).toHaveLength(2);
        expect(await all(log.getEvents(ref))).toHaveLength(1);
      });
    });
  });
}

class Bench {
  readonly #under: StoreUnderTest;

  constructor(under: StoreUnderTest) {
    this.#under = under;
  }

  worker(id: string): TestWorker {
    return this.wrap(this.#under.store.queue(id));
  }

  wrap(queue: WakeQueue): TestWorker {
    return new TestWorker(queue, this);
  }

  async until(condition: () => boolean): Promise<void> {
    for (let waited = 0; !condition(); waited += 10) {
      if (waited > DEADLINE_MS) throw new Error("what the test waits for did not happen");
      await this.#under.pass(10);
    }
  }

  pass(ms: number): Promise<void> {
    return this.#under.pass(ms);
  }

  readAll(lease: Lease): Promise<StoredEvent[]> {
    return all(lease.getEvents({ after: lease.position().seq }));
  }

  /** The first `n` items; fails when they do not come. */
  async take<T>(source: (signal: AbortSignal) => AsyncIterable<T>, n: number): Promise<T[]> {
    const collected = this.#collect(source, n);
    await this.until(() => collected.items.length >= n);
    await collected.stop();
    return collected.items;
  }

  async takeFor<T>(source: (signal: AbortSignal) => AsyncIterable<T>, ms: number): Promise<T[]> {
    const collected = this.#collect(source, Number.POSITIVE_INFINITY);
    await this.#under.pass(ms);
    await collected.stop();
    return collected.items;
  }

  tail(ref: SessionRef, after: { seq: number; id: string } | null, deltas = false) {
    const collected = this.#collect(
      (signal) => this.#under.store.log.tailEvents(ref, { after, deltas, signal }),
      Number.POSITIVE_INFINITY,
    );
    const isEvent = (item: TailItem) => item.kind === "event";
    return {
      ...collected,
      seqs: () => collected.items.filter(isEvent).map(({ event: { seq } }) => seq),
    };
  }

  #collect<T>(source: (signal: AbortSignal) => AsyncIterable<T>, n: number) {
    const stop = new AbortController();
    const items: T[] = [];
    const done = (async () => {
      for await (const item of source(stop.signal)) {
        items.push(item);
        if (items.length >= n) return;
      }
    })();
    return {
      items,
      stop: async () => {
        stop.abort();
        await this.#under.pass(1);
        await done;
      },
    };
  }
}

class TestWorker {
  readonly queue: WakeQueue;
  readonly #bench: Bench;

  constructor(queue: WakeQueue, bench: Bench) {
    this.queue = queue;
    this.#bench = bench;
  }

  async claimOne(): Promise<Lease> {
    const [lease] = await this.#claim(1, (taken) => this.#bench.until(() => taken.length > 0));
    if (lease === undefined) throw new Error("no lease");
    return lease;
  }

  /** What can be had within `ms`, at most `max`. */
  tryClaim(max: number, ms: number): Promise<Lease[]> {
    return this.#claim(max, async (taken) => {
      for (let waited = 0; waited < ms && taken.length < max; waited += 10)
        await this.#bench.pass(10);
    });
  }

  /** Stops without giving anything up, as kill -9 does. */
  async die(): Promise<void> {
    await this.queue.close();
  }

  async #claim(max: number, wait: (taken: Lease[]) => Promise<void>): Promise<Lease[]> {
    const stop = new AbortController();
    const taken: Lease[] = [];
    const loop = (async () => {
      const options = { capacity: () => max - taken.length, signal: stop.signal };
      for await (const lease of this.queue.claim(options)) taken.push(lease);
    })();
    await wait(taken);
    stop.abort();
    await this.#bench.pass(1);
    await loop;
    return taken;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

async function codeOf(work: Promise<unknown>): Promise<unknown> {
  const error = await errorOf(work);
  return typeof error === "object" && error !== null && "code" in error ? error.code : error;
}
