import { describe, expect, it } from "@jest/globals";
import type { Lease, NewEvent } from "../../../src/sessions/session-log.ts";
import type { LeaseTimings } from "../../../src/sessions/store/backed-queue.ts";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { all, codeOf, type Rig, type SetUp, type TestWorker } from "./rig.ts";

/** The pauses between takeovers are lives of a lease, up to 64 of them. */
const SHORT: LeaseTimings = { ttlMs: 60, renewMs: 15, pollMs: 5 };

export function describeQuarantine(setUp: SetUp): void {
  describe("quarantine", () => {
    it("a session whose worker dies five times is set aside, says so, and is lifted by a resume", async () => {
      const { log, operator, rig } = await setUp(SHORT);
      const ref = newRef();
      await log.createSession(newSession(ref));

      const { takeovers, finder } = await killUntilSetAside(rig);

      expect([...new Set(takeovers)]).toEqual([0, 1, 2, 3, 4]);
      expect(await operator.statusOf([ref])).toMatchObject([
        { status: "quarantined", why: "takeovers", leased: false },
      ]);
      const last = (await all(log.getEvents(ref))).at(-1);
      expect(last).toMatchObject({ type: "session.error", data: { type: "quarantined_error" } });
      expect(await finder.tryClaim(1, 100)).toEqual([]);
      await operator.emitEvents(ref, [event("session.resume_requested")], {
        idempotencyKey: "r",
      });
      expect(await finder.claimOne()).toMatchObject({ ref, takeover: 0 });
    });

    it("a sender to a session that is set aside is told so; what the operator says is taken", async () => {
      const { log, operator, rig } = await setUp(SHORT);
      const ref = newRef();
      await log.createSession(newSession(ref));
      await log.emitEvents(ref, [message("before")], { idempotencyKey: "before" });
      await killUntilSetAside(rig);

      const sent = log.emitEvents(ref, [message("hello?")], { idempotencyKey: "m" });

      expect(await codeOf(sent)).toBe("SESSION_QUARANTINED");
      expect(
        await log.emitEvents(ref, [message("before")], { idempotencyKey: "before" }),
      ).toMatchObject({ duplicate: true });
      const lost = event("sandbox.lost", { hand: "main", generation: 1, reason: "x", message: "" });
      await operator.emitEvents(ref, [lost], { idempotencyKey: "lost" });
      expect((await all(log.getEvents(ref))).at(-1)?.id).toBe(lost.id);
    });

    it.each([
      {
        name: "an open model request",
        work: [event("model.request_start", { req: "r1", upto: 1, model: "m" })],
        closes: { type: "model.request_abandoned", data: { req: "r1", reason: "quarantined" } },
      },
      {
        name: "a tool call without a result",
        work: [
          event("model.request_start", { req: "r1", upto: 1, model: "m" }),
          event("model.request_end", { req: "r1" }),
          event("tool.intent", { id: "c1", target: "sandbox" }),
          event("tool.intent", { id: "c2", target: "sandbox" }),
          event("tool.result", { id: "c1" }),
        ],
        closes: { type: "tool.result", data: { id: "c2", is_error: true, outcome: "unknown" } },
      },
    ])("$name is closed when the session is set aside", async ({ work, closes }) => {
      const { log, rig } = await setUp(SHORT);
      const ref = newRef();
      await log.createSession(newSession(ref));

      await killUntilSetAside(rig, work);

      const [error, closing, ...more] = (await all(log.getEvents(ref))).slice(1 + work.length);
      expect(error).toMatchObject({ type: "session.error", data: { type: "quarantined_error" } });
      expect(closing).toMatchObject(closes);
      expect(more).toEqual([]);
    });

    it("a session that is set aside is told of again when the answer to that claim is lost", async () => {
      const { log, rig, backend } = await setUp(SHORT);
      const ref = newRef();
      await log.createSession(newSession(ref));
      const call = [event("tool.intent", { id: "c1", target: "sandbox" })];
      await dieFiveTimes(rig, call);
      const lost = { worker: "lost", ttlMs: SHORT.ttlMs, max: 1, suspect: "", takesSuspect: true };
      for (let i = 0; i < 200; i += 1) {
        await backend.claim({ ...lost, nonce: `lost-${i}` });
        if ((await backend.head(ref))?.status === "quarantined") break;
        await rig.pass(10);
      }
      expect((await all(log.getEvents(ref))).at(-1)?.type).toBe("session.error");

      const worker = rig.worker("later");
      expect(await worker.tryClaim(1, 2500)).toEqual([]);

      expect(worker.queue.quarantined()).toBe(1);
      const types = (await all(log.getEvents(ref))).map(({ type }) => type);
      expect(types.slice(-2)).toEqual(["session.error", "tool.result"]);
    });

    it("stopping a session that is set aside ends it without a holder, and its log says so", async () => {
      const { log, operator, rig } = await setUp(SHORT);
      const ref = newRef();
      await log.createSession(newSession(ref));
      await killUntilSetAside(rig);

      await operator.emitEvents(ref, [event("session.stop_requested", { reason: "stop" })], {
        idempotencyKey: "t",
      });

      expect(await operator.statusOf([ref])).toMatchObject([{ status: "terminated", why: "stop" }]);
      const worker = rig.worker("later");
      expect(await worker.tryClaim(1, 200)).toEqual([]);
      expect((await all(log.getEvents(ref))).at(-1)).toMatchObject({
        type: "session.terminated",
        data: { reason: "stop" },
      });
      expect(worker.queue.quarantined()).toBe(0);
    });

    it("of sessions that shared their workers only the one that kills them is set aside", async () => {
      const { log, operator, rig } = await setUp(SHORT);
      const [poison, ...innocent] = [newRef(), newRef(), newRef(), newRef()];
      for (const ref of [poison, ...innocent]) await log.createSession(newSession(ref));
      let deaths = 0;

      const isSetAside = async () =>
        (await operator.statusOf([poison]))[0]?.status === "quarantined";
      for (let i = 0; i < 300 && !(await isSetAside()); i += 1) {
        const worker = rig.worker(`w${i}`);
        let dies = false;
        while (!dies && !(await isSetAside())) {
          const leases = await worker.tryClaim(4, 20);
          dies = leases.some(({ ref }) => ref.id === poison.id);
          if (dies) break;
          for (const lease of leases) {
            await rig.readAll(lease);
            await lease.emitEvents([event("tool.result", {})]);
          }
        }
        if (dies) deaths += 1;
        await worker.die();
      }

      expect(deaths).toBeGreaterThanOrEqual(5);
      const states = await operator.statusOf([poison, ...innocent]);
      expect(states.map((state) => state?.status)).toEqual([
        "quarantined",
        "running",
        "running",
        "running",
      ]);
    });

    it("progress starts the count of deaths anew", async () => {
      const { log, rig } = await setUp();
      await log.createSession(newSession(newRef()));
      for (let i = 0; i < 7; i += 1) {
        const worker = rig.worker(`w${i}`);
        const lease = await worker.claimOne();
        expect(lease.takeover).toBe(i === 0 ? 0 : 1);
        await rig.readAll(lease);
        await lease.emitEvents([event("tool.result", {})]);
        await worker.die();
      }
    });
  });
}

/**
 * Workers die under the only session until the next one finds it set aside. Five deaths are enough; a
 * store in real time may stand still for a moment, and for what happens then it blames nobody.
 */
async function killUntilSetAside(
  rig: Rig,
  work: NewEvent[] = [],
): Promise<{ takeovers: number[]; finder: TestWorker }> {
  const takeovers: number[] = [];
  while (takeovers.length < 30) {
    const worker = rig.worker(`w${takeovers.length}`);
    let leases: Lease[] = [];
    for (let i = 0; i < 400 && leases.length + worker.queue.quarantined() === 0; i += 1) {
      leases = await worker.tryClaim(1, 20);
    }
    const [lease] = leases;
    if (lease === undefined) return { takeovers, finder: worker };
    if (takeovers.length === 0 && work.length > 0) {
      await rig.readAll(lease);
      await lease.emitEvents(work);
    }
    takeovers.push(lease.takeover);
    await worker.die();
  }
  throw new Error("thirty workers died, and the session is not set aside");
}

/** Five workers die under the only session; the first does some work. */
async function dieFiveTimes(rig: Rig, work: NewEvent[]): Promise<void> {
  for (let i = 0; i < 5; i += 1) {
    const worker = rig.worker(`w${i}`);
    const lease = await worker.claimOne();
    if (i === 0 && work.length > 0) {
      await rig.readAll(lease);
      await lease.emitEvents(work);
    }
    await worker.die();
  }
}
