import { describe, expect, it } from "@jest/globals";
import type { SessionRef, StateChange } from "../../../src/sessions/session-log.ts";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { all, codeOf, type SetUp } from "./rig.ts";

export function describeOperatorTables(setUp: SetUp): void {
  describe("what the operator is told", () => {
    it("open sandbox requests are told until they are answered", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      const asked = event("sandbox.requested", { hand: "main", generation: 1, template: "node" });
      const dropped = event("sandbox.released", { hand: "old", generation: 3, reason: "x" });
      await lease.emitEvents([asked, dropped]);

      const told = await rig.take(operator.requests.bind(operator), 2);

      expect(told.toSorted((a, b) => (a.kind < b.kind ? 1 : -1))).toEqual([
        { ref, requestId: dropped.id, kind: "release", hand: "old", generation: 3 },
        { ref, requestId: asked.id, kind: "provision", hand: "main", generation: 1 },
      ]);
      for (const request of told) await operator.answered(request);
      expect(await rig.takeFor(operator.requests.bind(operator), 100)).toEqual([]);
    });

    it("a request made while the operator listens arrives", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);

      const listening = rig.take(operator.requests.bind(operator), 1);
      await lease.emitEvents([event("sandbox.requested", { hand: "main", generation: 1 })]);

      expect(await listening).toMatchObject([{ ref, kind: "provision", hand: "main" }]);
    });

    it("what is said only while a session is idle never meets a worker or an unread message", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
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
      const { log, operator, rig } = await setUp();
      const [ref, api] = [newRef(), newRef()];
      await log.createSession(newSession(ref));
      await log.createSession(newSession(api, { source: "api" }));

      const [created] = await rig.take(operator.changes.bind(operator), 1);

      expect(created).toMatchObject({ ref, status: "created", why: "", seq: 1 });
      await operator.ackState(created as StateChange);
      expect(await rig.takeFor(operator.changes.bind(operator), 100)).toEqual([]);
    });

    it("acknowledging an old state does not lose a newer one", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const [created] = await rig.take(operator.changes.bind(operator), 1);
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      // The same seq as the change before: only the state differs.
      await lease.release({ kind: "idle", why: "end_turn" });

      await operator.ackState(created as StateChange);

      const [idle] = await rig.take(operator.changes.bind(operator), 1);
      expect(idle).toMatchObject({ ref, status: "idle", why: "end_turn", seq: 1 });
    });

    it("a deleted session is gone, its holder drops it, and deleting again is no error", async () => {
      const { log, operator, rig, traces } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      await log.emitEvents(ref, [message("x".repeat(70_000))], { idempotencyKey: "k" });
      const lease = await rig.worker("a").claimOne();
      await rig.readAll(lease);
      await lease.emitEvents([event("sandbox.requested", { hand: "main", generation: 1 })]);

      await operator.deleteSession(ref);

      expect(await traces(ref)).toEqual([]);
      expect(await log.getSession(ref)).toBeNull();
      expect(await codeOf(lease.emitEvents([event("tool.result")]))).toBe("SESSION_LEASE_LOST");
      expect(await rig.takeFor(operator.requests.bind(operator), 60)).toEqual([]);
      expect(await rig.takeFor(operator.changes.bind(operator), 60)).toEqual([]);
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
}
