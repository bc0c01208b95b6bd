import { describe, expect, it } from "@jest/globals";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { type SetUp } from "./rig.ts";

export function describeControl(setUp: SetUp): void {
  describe("control by the operator", () => {
    it("a suspended session is not claimed until it is resumed", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      await operator.emitEvents(ref, [event("session.suspend_requested")], {
        idempotencyKey: "s",
      });
      const worker = rig.worker("a");
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
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const worker = rig.worker("a");
      const lease = await worker.claimOne();
      await operator.emitEvents(ref, [event("session.suspend_requested")], {
        idempotencyKey: "s",
      });
      await rig.readAll(lease);
      await operator.emitEvents(ref, [event("session.resume_requested")], {
        idempotencyKey: "r",
      });

      expect(await lease.release({ kind: "suspended" })).toBe("released");

      const next = await worker.claimOne();
      await rig.readAll(next);
      expect(await next.release({ kind: "suspended" })).toBe("released");
      expect(await operator.statusOf([ref])).toMatchObject([{ status: "suspended" }]);
      expect(await worker.tryClaim(1, 100)).toEqual([]);
    });

    it("stopping a suspended session lets a worker end it", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      await operator.emitEvents(ref, [event("session.suspend_requested")], {
        idempotencyKey: "s",
      });

      await operator.emitEvents(ref, [event("session.stop_requested", { reason: "stop" })], {
        idempotencyKey: "t",
      });

      expect((await rig.worker("a").claimOne()).ref).toEqual(ref);
    });
  });
}
