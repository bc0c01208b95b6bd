import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import {
  anAgent,
  aSession,
  aTemplate,
  conditionOf,
  eventually,
  OperatorRig,
} from "./operator-rig.ts";

let api: ApiServer;
let rig: OperatorRig;

beforeAll(async () => {
  api = await startApiServer({ audit: true });
  rig = new OperatorRig(api);
  await rig.install();
  rig.start();
  await rig.apply(anAgent(), aTemplate());
}, 120_000);

afterAll(async () => {
  await rig?.close();
  await api?.stop();
});

describe("a session from apply to delete", () => {
  it("is created in the log, gets a pod when it asks, is told, completes, and leaves nothing", async () => {
    await rig.apply(aSession("hello"));
    const lease = await rig.claim("hello");
    const pinned = await rig.session("hello");
    expect(pinned.metadata.finalizers).toEqual(["drover.dev/session"]);
    expect(pinned.metadata.annotations?.["drover.dev/session-id"]).toBe(lease.ref.id);
    expect(await rig.pods(pinned)).toEqual([]);

    await rig.ask(lease, 1);
    const pod = await eventually("the sandbox pod", async () => (await rig.pods(pinned))[0]);
    expect(pod.metadata.ownerReferences?.[0]).toMatchObject({
      kind: "AgentSession",
      name: "hello",
      controller: true,
    });
    await rig.podReady(pod);
    const provisioned = await rig.nextEvent(lease, ["sandbox.provisioned", "sandbox.lost"]);
    expect(provisioned).toMatchObject({
      type: "sandbox.provisioned",
      data: { sandboxId: pod.metadata.uid, address: "10.1.2.3:7080", generation: 1 },
    });
    expect(await rig.store.ports.readBinding(pod.metadata.uid ?? "")).toMatchObject({
      sessionId: lease.ref.id,
      ip: "10.1.2.3",
    });

    await lease.emitEvents(
      [{ id: "sevt_idle", type: "session.status_idle", data: { stop_reason: "end_turn" } }],
      { release: { kind: "idle", why: "end_turn" } },
    );
    const done = await eventually("Completed", async () => {
      const session = await rig.session("hello");
      return conditionOf(session, "Completed")?.status === "True" && session;
    });
    expect(done.status).toMatchObject({ state: "Idle", sessionId: lease.ref.id });
    expect(conditionOf(done, "Ready")).toMatchObject({ status: "True", reason: "Idle" });
    expect(done.status?.conditions?.map(({ type }) => type).toSorted()).toEqual([
      "AgentResolved",
      "Completed",
      "PoolResolved",
      "Ready",
      "Reconciling",
      "Stalled",
      "TemplateResolved",
      "VaultsResolved",
    ]);

    await rig.kubectlOk(["-n", "team-a", "delete", "agentsession", "hello", "--timeout=20s"]);
    expect(await rig.pods(pinned)).toEqual([]);
    expect(await rig.store.operator.statusOf([lease.ref])).toEqual([null]);
  });
});
