import { describe, expect, it } from "@jest/globals";
import { event, newRef, newSession, snapshotOf } from "../../builders/sessions.ts";
import { CONTRACT_TIMINGS, codeOf, type SetUp } from "./rig.ts";

export function describeClaims(setUp: SetUp): void {
  describe("claims", () => {
    it("a woken session is claimed by exactly one of several workers", async () => {
      const { log, rig } = await setUp();
      const refs = Array.from({ length: 12 }, () => newRef());
      for (const ref of refs) await log.createSession(newSession(ref));
      const workers = ["a", "b", "c"].map((id) => rig.worker(id));

      const taken = (await Promise.all(workers.map((worker) => worker.tryClaim(12, 300)))).flat();

      expect(taken.map(({ ref }) => ref.id).toSorted()).toEqual(
        refs.map(({ id }) => id).toSorted(),
      );
    });

    it("claims stop at the worker's capacity", async () => {
      const { log, rig } = await setUp();
      for (let i = 0; i < 9; i += 1) await log.createSession(newSession(newRef()));

      const first = await rig.worker("a").tryClaim(3, 300);
      const second = await rig.worker("b").tryClaim(9, 300);

      expect(first).toHaveLength(3);
      expect(second).toHaveLength(6);
    });

    it("a session created asleep is claimed only after a wake", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref, { wake: false }));
      const worker = rig.worker("a");
      expect(await worker.tryClaim(1, 100)).toEqual([]);

      await log.wake(ref);

      const lease = await worker.claimOne();
      expect(lease).toMatchObject({ ref, epoch: 1, takeover: 0 });
    });

    it("a held lease is renewed for as long as the worker lives", async () => {
      const { log, rig, pass } = await setUp();
      await log.createSession(newSession(newRef()));
      const lease = await rig.worker("a").claimOne();

      await pass(CONTRACT_TIMINGS.ttlMs * 3);

      expect(await rig.worker("b").tryClaim(1, 100)).toEqual([]);
      await lease.barrier();
      expect(lease.lost.aborted).toBe(false);
      expect(lease.fresh()).toBe(true);
    });

    it("a lease that is renewed no more stops being fresh before another worker can take it", async () => {
      const { log, rig, pass } = await setUp();
      await log.createSession(newSession(newRef()));
      const holder = rig.worker("a");
      const lease = await holder.claimOne();
      expect(lease.fresh()).toBe(true);

      await holder.die();
      await pass(CONTRACT_TIMINGS.ttlMs);

      expect(lease.fresh()).toBe(false);
    });

    it("another worker takes over when the holder dies, and the dead one's writes are refused", async () => {
      const { log, rig } = await setUp();
      await log.createSession(newSession(newRef()));
      const dead = rig.worker("a");
      const zombie = await dead.claimOne();
      await rig.readAll(zombie);
      await dead.die();

      const heir = await rig.worker("b").claimOne();

      expect(heir).toMatchObject({ epoch: 2, takeover: 1 });
      expect(await codeOf(zombie.emitEvents([event("tool.result", {})]))).toBe(
        "SESSION_LEASE_LOST",
      );
      expect(zombie.lost.aborted).toBe(true);
      expect(await codeOf(zombie.release({ kind: "requeue" }))).toBe("SESSION_LEASE_LOST");
    });

    it("a holder that was paused learns of its loss from the next renewal", async () => {
      const { store, log, rig, backend, pass } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await backend.release(ref, { token: lease.token, seen: 1, release: { kind: "requeue" } });
      const heir = rig.wrap(store.queue("b"));
      await heir.claimOne();

      await pass(CONTRACT_TIMINGS.renewMs * 3);

      expect(lease.lost.aborted).toBe(true);
    });

    it("ports tell the holder, and nothing about a session that is not there", async () => {
      const { store, log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("pod-uid").claimOne();

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
      const { store, rig } = await setUp();
      await rig.worker("pod-1").tryClaim(1, 60);

      expect((await store.queue("x").workers()).map(({ id }) => id)).toEqual(["pod-1"]);
    });
  });
}
