import { describe, expect, it } from "@jest/globals";
import { type Position, START } from "../../../src/sessions/session-log.ts";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { all, CONTRACT_TIMINGS, codeOf, type SetUp } from "./rig.ts";

const stop = new AbortController();

export function describeLeaseWrites(setUp: SetUp): void {
  describe("writing under a lease", () => {
    it("the first append after a claim makes the session running, and entries carry the epoch", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);

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
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
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
      const { log, rig, backend } = await setUp();
      const ref = newRef();
      const { head } = await log.createSession(newSession(ref));
      const { token } = await rig.worker("a").claimOne();
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

      expect(first).toMatchObject({ word: "OK", first: 2, last: 3 });
      expect(again).toEqual({ ...first, word: "DUP" });
      expect(await all(log.getEvents(ref))).toHaveLength(4);
    });

    it("a batch that released the session is recognised when it is sent again", async () => {
      const { log, rig, backend } = await setUp();
      const ref = newRef();
      const { head } = await log.createSession(newSession(ref));
      const { token } = await rig.worker("a").claimOne();
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

      const [last] = (await backend.read(ref, { after: 1, limit: 1, reverse: false })) ?? [];
      expect(await backend.appendLeased(ref, op, options)).toEqual({
        word: "DUP",
        first: 2,
        last: 2,
        chain: last?.chain,
      });
      const repeat = { token, seen: 2, release: { kind: "idle", why: "end_turn" } } as const;
      expect(await backend.release(ref, repeat)).toEqual({ word: "OK" });
    });

    it.each<{ name: string; n?: number; prev: (tail: Position) => Position }>([
      { name: "the tail has another id", prev: (tail) => ({ ...tail, id: "sevt_other" }) },
      {
        name: "the tail has the same event on another beginning",
        prev: (tail) => ({ ...tail, chain: "0123456789abcdef" }),
      },
      { name: "the log is shorter than what was read", prev: (tail) => ({ ...tail, seq: 9 }) },
      { name: "the batch ordinal leaves a gap", prev: () => START, n: 2 },
    ])("a write is REWOUND when $name", async ({ prev: prevOf, n = 1 }) => {
      const { log, rig, backend } = await setUp();
      const ref = newRef();
      const { head } = await log.createSession(newSession(ref));
      const prev = prevOf(head.pos);
      const { token } = await rig.worker("a").claimOne();

      const reply = await backend.appendLeased(
        ref,
        { token, n, prev, onlyIfTail: false, release: null, events: [event("tool.result")] },
        { durability: "applied", signal: stop.signal },
      );

      expect(reply).toEqual({ word: "REWOUND", seq: 1 });
      expect(await all(log.getEvents(ref))).toHaveLength(1);
    });

    it("a write is REWOUND when an entry below the tail has another id or another beginning", async () => {
      const { log, rig, backend } = await setUp();
      const ref = newRef();
      const events = [message("1"), message("2"), message("3")];
      await log.createSession(newSession(ref, { events }));
      const { token } = await rig.worker("a").claimOne();
      const write = (prev: Position) =>
        backend.appendLeased(
          ref,
          { token, n: 1, prev, onlyIfTail: false, release: null, events: [event("tool.result")] },
          { durability: "applied", signal: stop.signal },
        );

      const [second = START] =
        (await backend.read(ref, { after: 1, limit: 1, reverse: false })) ?? [];
      for (const other of [{ id: "sevt_other" }, { chain: "0123456789abcdef" }]) {
        const prev = { ...second, ...other };
        expect(await write(prev)).toMatchObject({ word: "REWOUND" });
        expect(await backend.barrier(ref, { token, prev })).toMatchObject({ word: "REWOUND" });
      }
      expect(await write(second)).toMatchObject({ word: "OK" });
    });

    it("events of others before an append are reported, and stopping waits until they are read", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
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
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });

      const result = await lease.emitEvents([event("session.status_idle")], { onlyIfTail: true });

      expect(result).toEqual({ status: "more", tail: 2 });
      expect(await all(log.getEvents(ref))).toHaveLength(2);
    });

    it("a barrier proves the lease and what was read", async () => {
      const { log, rig } = await setUp();
      await log.createSession(newSession(newRef()));
      const first = rig.worker("a");
      const lease = await first.claimOne();
      await rig.readAll(lease);
      await lease.barrier();
      await first.die();
      await rig.worker("b").claimOne();

      expect(await codeOf(lease.barrier())).toBe("SESSION_LEASE_LOST");
    });

    it("listeners hear of events of others but not of the holder's own", async () => {
      const { log, rig, pass } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      const heard: number[] = [];
      const off = lease.onEvents((tail) => heard.push(tail));
      await pass(CONTRACT_TIMINGS.renewMs);

      await lease.emitEvents([event("tool.result")]);
      await pass(CONTRACT_TIMINGS.renewMs * 3);
      const own = [...heard];
      await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });
      await rig.until(() => heard.length > 0);

      off();
      expect(own).toEqual([]);
      expect(heard).toEqual([3]);
    });

    it("sessions that were claimed together each hear of their own log, not of each other's", async () => {
      const { log, rig, pass } = await setUp();
      const [a, b] = [newRef(), newRef()];
      for (const ref of [a, b]) await log.createSession(newSession(ref));
      const heard = new Map<string, number>();
      for (const lease of await rig.worker("a").tryClaim(2, 1000)) {
        await rig.readAll(lease);
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
        await rig.until(() => heard.get(ref.id) === last);
        await pass(CONTRACT_TIMINGS.renewMs * 3);
        tails.push(heard.get(ref.id) ?? 0);
      }

      expect(tails).toEqual([4, 4, 6, 5]);
    });
  });
}
