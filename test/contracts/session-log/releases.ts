import { describe, expect, it } from "@jest/globals";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { codeOf, type SetUp } from "./rig.ts";

export function describeReleases(setUp: SetUp): void {
  describe("giving up a lease", () => {
    it("an idle session waits for the next message", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const worker = rig.worker("a");
      const lease = await worker.claimOne();
      await rig.readAll(lease);

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
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      await log.emitEvents(ref, [message("meanwhile")], { idempotencyKey: "k" });

      expect(await lease.release({ kind: "idle", why: "end_turn" })).toBe("more");

      await rig.readAll(lease);
      expect(await lease.release({ kind: "idle", why: "end_turn" })).toBe("released");
    });

    it("an event that gives nothing to do does not wake", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const worker = rig.worker("a");
      const lease = await worker.claimOne();
      await rig.readAll(lease);
      await lease.release({ kind: "idle", why: "end_turn" });

      await log.emitEvents(ref, [event("sandbox.released", { hand: "main", generation: 1 })], {
        idempotencyKey: "k",
      });

      expect(await worker.tryClaim(1, 150)).toEqual([]);
    });

    it("a handed-over session is claimed by another worker at once, as no takeover", async () => {
      const { log, rig } = await setUp();
      await log.createSession(newSession(newRef()));
      const lease = await rig.worker("a").claimOne();

      await lease.release({ kind: "requeue" });

      expect(await rig.worker("b").claimOne()).toMatchObject({ epoch: 2, takeover: 0 });
    });

    it("an abandoned lease runs out although its worker lives, and its holder drops it", async () => {
      const { log, rig } = await setUp();
      await log.createSession(newSession(newRef()));
      const worker = rig.worker("a");
      const lease = await worker.claimOne();

      lease.abandon();

      expect(lease.lost.aborted).toBe(true);
      await expect(lease.emitEvents([event("tool.result")])).rejects.toMatchObject({
        code: "SESSION_LEASE_LOST",
      });
      // Nobody has died.
      expect(await worker.claimOne()).toMatchObject({ epoch: 2, takeover: 0 });
    });

    it("a session that backs off is claimed when its time has come, or earlier by a message", async () => {
      const { log, rig } = await setUp();
      const [slow, early] = [newRef(), newRef()];
      for (const ref of [slow, early]) await log.createSession(newSession(ref));
      const worker = rig.worker("a");
      const leases = await worker.tryClaim(2, 500);
      for (const lease of leases) {
        await rig.readAll(lease);
        await lease.release({ kind: "after", delayMs: 1500 });
      }
      expect(await worker.tryClaim(2, 150)).toEqual([]);

      await log.emitEvents(early, [message("now")], { idempotencyKey: "k" });

      expect((await worker.claimOne()).ref).toEqual(early);
      expect((await worker.claimOne()).ref).toEqual(slow);
    });

    it("a terminated session takes no events, but answers a repeated key", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const sent = [event("session.stop_requested", { reason: "stop" })];
      await log.emitEvents(ref, sent, { idempotencyKey: "k" });
      const worker = rig.worker("a");
      const lease = await worker.claimOne();
      await rig.readAll(lease);
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
}
