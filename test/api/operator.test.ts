import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { events, type KubeEvent } from "../../src/kube/resources.ts";
import { cleanUp } from "../../src/operator/cleanup.ts";
import {
  deployments,
  harnessPools,
  networkPolicies,
  type Pod,
  pods,
} from "../../src/operator/kinds.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import type { Lease } from "../../src/sessions/session-log.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { eventually } from "../eventually.ts";
import { anAgent, aPool, aSession, aTemplate, conditionOf, OperatorRig } from "./operator-rig.ts";

let api: ApiServer;
let rig: OperatorRig;

beforeAll(async () => {
  api = await startApiServer({
    audit: true,
    // Owning an object with blockOwnerDeletion then needs a right of its own.
    args: ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"],
  });
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

describe("references", () => {
  it("a missing agent is a condition and an Event that say what to do, and the session starts when it comes", async () => {
    await rig.apply(aSession("early", { agentRef: { name: "late" } }));

    const stalled = await eventually("Stalled", async () => {
      const session = await rig.session("early");
      return conditionOf(session, "Stalled")?.status === "True" && session;
    });
    expect(conditionOf(stalled, "AgentResolved")).toMatchObject({
      status: "False",
      reason: "InvalidReference",
      message: expect.stringContaining('agent "late" which does not exist in namespace "team-a"'),
    });
    expect(stalled.status?.conditions).toHaveLength(8);
    expect(stalled.metadata.finalizers).toBeUndefined();
    const told = await eventually("the Event", async () => {
      const text = await rig.kubectlOk(["-n", "team-a", "events", "--for", "agentsession/early"]);
      return text.includes("InvalidReference") && text;
    });
    expect(told).toContain("create the Agent");

    await rig.apply(anAgent("late"));
    const lease = await rig.claim("early");
    await finish(lease);
    await rig.kubectlOk([
      "-n",
      "team-a",
      "wait",
      "ags/early",
      "--for=condition=Completed",
      "--timeout=20s",
    ]);
  });

  it("a pool that does not serve the namespace stalls the session until it does", async () => {
    await rig.apply(aSession("elsewhere", { harnessPoolRef: { name: "private" } }));
    await rig.apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "HarnessPool",
      metadata: { name: "private", namespace: "drover" },
      spec: { replicas: 0 },
    });

    await eventually("PoolResolved=False", async () => {
      const session = await rig.session("elsewhere");
      return conditionOf(session, "PoolResolved")?.reason === "NamespaceNotAllowed";
    });
    await rig.kubectlOk([
      "-n",
      "drover",
      "patch",
      "harnesspool",
      "private",
      "--type=merge",
      "-p",
      JSON.stringify({ spec: { allowedNamespaces: { from: "All" } } }),
    ]);

    const lease = await rig.claim("elsewhere");
    expect(lease.ref.tenant).toBe("team-a");
  });
});

describe("operatingMode", () => {
  it("suspends, resumes and stops the session, each once and as the status says", async () => {
    await rig.apply(aSession("modes"));
    const lease = await rig.claim("modes");
    const setMode = (mode: string) =>
      rig.kubectlOk([
        "-n",
        "team-a",
        "patch",
        "ags",
        "modes",
        "--type=merge",
        "-p",
        JSON.stringify({ spec: { operatingMode: mode } }),
      ]);

    await setMode("Suspended");
    await rig.nextEvent(lease, ["session.suspend_requested"]);
    const onTheWay = await rig.session("modes");
    await lease.release({ kind: "suspended" });
    await rig.kubectlOk([
      "-n",
      "team-a",
      "wait",
      "ags/modes",
      "--for=jsonpath={.status.state}=Suspended",
      "--timeout=20s",
    ]);
    const suspended = await rig.session("modes");
    expect(conditionOf(suspended, "Ready")).toMatchObject({ status: "True", reason: "Suspended" });
    expect(conditionOf(onTheWay, "Completed")?.status).not.toBe("True");

    await setMode("Running");
    const second = await rig.claim("modes");
    await setMode("Stopped");
    await rig.nextEvent(second, ["session.stop_requested"]);
    await second.emitEvents(
      [{ id: "sevt_stop", type: "session.terminated", data: { reason: "stop" } }],
      { release: { kind: "terminated", why: "stop" } },
    );
    await rig.kubectlOk([
      "-n",
      "team-a",
      "wait",
      "ags/modes",
      "--for=condition=Completed",
      "--timeout=20s",
    ]);
    const stopped = await rig.session("modes");
    expect(stopped.status).toMatchObject({ state: "Stopped", observedGeneration: 4 });
    expect(stopped.spec.operatingMode).toBe("Stopped");
  });
});

describe("sandboxes", () => {
  it("an image that cannot be pulled is told at once, with the kubelet's words", async () => {
    const { lease, pod } = await withPod("no-image");
    await rig.podStatus(pod, {
      phase: "Pending",
      containerStatuses: [
        {
          name: "sandbox",
          ready: false,
          restartCount: 0,
          image: "x",
          imageID: "",
          state: { waiting: { reason: "ImagePullBackOff", message: "Back-off pulling image" } },
        },
      ],
    });

    const lost = await rig.nextEvent(lease, ["sandbox.lost"]);

    expect(lost.data).toMatchObject({
      reason: "ImagePullFailed",
      generation: 1,
      message: expect.stringContaining("Back-off pulling image"),
    });
    await eventually("the pod is gone", async () => (await podsOf("no-image")).length === 0);
  });

  it("a sandbox in use that is deleted is lost once, and the next generation is another pod", async () => {
    const { lease, pod } = await withPod("deleted");
    await rig.podReady(pod);
    await rig.nextEvent(lease, ["sandbox.provisioned"]);

    await rig.client.delete(pods, pod.metadata, { gracePeriodSeconds: 0 });
    const lost = await rig.nextEvent(lease, ["sandbox.lost"]);
    await rig.ask(lease, 2);
    const next = await eventually("generation 2", async () => (await podsOf("deleted"))[0]);

    expect(lost.data).toMatchObject({ reason: "PodDeleted", generation: 1 });
    expect(next.metadata.name).not.toBe(pod.metadata.name);
    expect(next.metadata.labels?.["drover.dev/generation"]).toBe("2");
    expect(await rig.store.ports.readBinding(pod.metadata.uid ?? "")).toBeNull();
  });

  it("a sandbox that runs out of memory is lost, one whose container restarts is not", async () => {
    const { lease, pod } = await withPod("memory");
    await rig.podReady(pod);
    await rig.nextEvent(lease, ["sandbox.provisioned"]);
    const restarted = (reason: string) => ({
      phase: "Running",
      podIP: "10.1.2.3",
      containerStatuses: [
        {
          name: "sandbox",
          ready: true,
          restartCount: 1,
          image: "x",
          imageID: "x",
          state: { running: {} },
          lastState: { terminated: { exitCode: 137, reason } },
        },
      ],
    });

    await rig.podStatus(pod, restarted("Error"));
    await sleep(1_000);
    expect((await podsOf("memory"))[0]?.metadata.uid).toBe(pod.metadata.uid);
    await rig.podStatus(pod, restarted("OOMKilled"));
    const lost = await rig.nextEvent(lease, ["sandbox.lost"]);

    expect(lost.data).toMatchObject({
      reason: "OutOfMemory",
      message: expect.stringContaining("512Mi"),
    });
  });

  it("a set-up script that fails is told with its last words", async () => {
    const { lease, pod } = await withPod("set-up");
    await rig.podStatus(pod, {
      phase: "Pending",
      initContainerStatuses: [
        {
          name: "setup",
          ready: false,
          restartCount: 0,
          image: "x",
          imageID: "x",
          state: { terminated: { exitCode: 3, reason: "Error", message: "npm: not found" } },
        },
      ],
    });

    const lost = await rig.nextEvent(lease, ["sandbox.lost"]);

    expect(lost.data).toMatchObject({
      reason: "SetupFailed",
      message: expect.stringContaining("exit code 3: npm: not found"),
    });
  });

  it("a quota that is full is named when the start deadline passes", async () => {
    // The API server's own quota needs a controller manager: here the limit of a LimitRange refuses.
    await rig.apply({
      apiVersion: "v1",
      kind: "LimitRange",
      metadata: { name: "small", namespace: "team-b" },
      spec: { limits: [{ type: "Container", max: { memory: "64Mi" } }] },
    });
    await rig.apply(
      anAgent("coder", "team-b"),
      aTemplate({}, "node", "team-b"),
      aSession("limited", {}, "team-b"),
    );
    const lease = await rig.claim("limited");
    await rig.ask(lease, 1);

    const lost = await rig.nextEvent(lease, ["sandbox.lost"]);

    expect(lost.data).toMatchObject({
      reason: "QuotaExceeded",
      message: expect.stringContaining("maximum memory usage per Container is 64Mi"),
    });
  });

  it("an idle session's sandbox is released after its time, and announced", async () => {
    await rig.apply(aTemplate({ idleTimeoutSeconds: 1 }, "brief"));
    const { lease, pod } = await withPod("idle", { sandboxTemplateRef: { name: "brief" } });
    await rig.podReady(pod);
    await rig.nextEvent(lease, ["sandbox.provisioned"]);

    await finish(lease);
    const ending = await eventually("the pod ends", async () => {
      const [found] = await podsOf("idle");
      return found?.metadata.deletionTimestamp !== undefined && found;
    });
    await eventually("the pod is gone", async () => (await podsOf("idle")).length === 0);
    await sleep(1_000);

    expect(ending.metadata.uid).toBe(pod.metadata.uid);
    expect(await sandboxEventsOf(lease)).toEqual([
      "sandbox.requested",
      "sandbox.provisioned",
      "sandbox.released",
    ]);
    expect(await rig.store.ports.readBinding(pod.metadata.uid ?? "")).toBeNull();
    expect(await warningsOf("idle")).toEqual([]);
    expect(await rig.store.operator.statusOf([lease.ref])).toMatchObject([{ status: "idle" }]);
  });

  it("a sandbox that cannot start is told once, with the reason, while its pod takes time to end", async () => {
    const { lease, pod } = await withPod("refused");
    await rig.podStatus(pod, {
      containerStatuses: [
        {
          name: "sandbox",
          image: "x",
          imageID: "",
          ready: false,
          restartCount: 0,
          state: { waiting: { reason: "ImagePullBackOff", message: "manifest unknown" } },
        },
      ],
    });
    await eventually("the pod ends", async () => {
      const [found] = await podsOf("refused");
      return found?.metadata.deletionTimestamp !== undefined;
    });
    await eventually("the pod is gone", async () => (await podsOf("refused")).length === 0);
    await sleep(1_000);

    expect(await sandboxEventsOf(lease)).toEqual(["sandbox.requested", "sandbox.lost"]);
    expect(await warningsOf("refused")).toMatchObject([
      { reason: "SandboxLost", note: expect.stringContaining("ImagePullFailed") },
    ]);
  });

  it("an operator that starts while a released pod ends tells of no loss", async () => {
    const { lease, pod } = await withPod("handover");
    await rig.podReady(pod);
    await rig.nextEvent(lease, ["sandbox.provisioned"]);
    await rig.ask(lease, 1, "release");
    await eventually("the pod ends", async () => {
      const [found] = await podsOf("handover");
      return found?.metadata.deletionTimestamp !== undefined;
    });
    await rig.stop();
    rig.start();
    await eventually("the pod is gone", async () => (await podsOf("handover")).length === 0);
    await sleep(2_000);

    expect(await sandboxEventsOf(lease)).not.toContain("sandbox.lost");
    expect(await warningsOf("handover")).toEqual([]);
  });

  it("a pod that is labelled like the session's and owned by nobody outlives it", async () => {
    const { pod } = await withPod("copied");
    const { labels, annotations } = pod.metadata;
    await rig.apply({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "foreign", namespace: "team-a", labels, annotations },
      spec: pod.spec,
    });
    await sleep(1_000);
    await rig.kubectlOk(["-n", "team-a", "delete", "ags", "copied", "--timeout=60s"]);
    await sleep(2_000);

    const foreign = await rig.kubectlOk(["-n", "team-a", "get", "pod", "foreign", "-o", "json"]);
    await rig.kubectlOk(["-n", "team-a", "delete", "pod", "foreign", "--now"]);
    expect(JSON.parse(foreign).metadata.deletionTimestamp).toBeUndefined();
  });

  it("names of 253 characters that differ in the last letter give valid, different pods", async () => {
    const long = "a".repeat(252);
    const names = await Promise.all(
      ["b", "c"].map(async (last) => {
        const { pod } = await withPod(`${long}${last}`);
        return pod.metadata.name;
      }),
    );

    expect(new Set(names).size).toBe(2);
    for (const name of names) expect(name.length).toBeLessThanOrEqual(63);
  });
});

describe("an operator that was away", () => {
  it("takes the pod that its predecessor made, and makes no second one", async () => {
    const { lease, pod } = await withPod("restart");
    await rig.stop();
    await rig.podReady(pod);
    rig.start();

    const provisioned = await rig.nextEvent(lease, ["sandbox.provisioned", "sandbox.lost"]);

    expect(provisioned).toMatchObject({
      type: "sandbox.provisioned",
      data: { sandboxId: pod.metadata.uid },
    });
    expect(await podsOf("restart")).toHaveLength(1);
  });

  it("writes no finalizer to a session that was deleted meanwhile, and lets it go", async () => {
    await rig.stop();
    await rig.apply({
      ...aSession("held"),
      metadata: { name: "held", namespace: "team-a", finalizers: ["example.com/hold"] },
    });
    await rig.kubectlOk(["-n", "team-a", "delete", "ags", "held", "--wait=false"]);
    rig.start();
    await sleep(2_000);

    const held = await rig.session("held");
    await rig.kubectlOk([
      "-n",
      "team-a",
      "patch",
      "ags",
      "held",
      "--type=json",
      "-p",
      JSON.stringify([{ op: "remove", path: "/metadata/finalizers" }]),
    ]);

    expect(held.metadata.finalizers).toEqual(["example.com/hold"]);
    expect(held.metadata.annotations?.["drover.dev/session-id"]).toBeUndefined();
    const gone = await rig.api.kubectl(["-n", "team-a", "get", "ags", "held"]);
    expect(gone.stderr).toContain("not found");
  });
});

describe("isolation and pools", () => {
  it("a namespace has its policy and account with the first session, until the last is gone", async () => {
    const get = (what: string) => rig.api.kubectl(["-n", "team-b", "get", what, "drover-sandbox"]);
    await eventually("the policy", async () => (await get("networkpolicy")).code === 0);
    expect((await get("serviceaccount")).code).toBe(0);
    const policy = await rig.client.get(networkPolicies, {
      namespace: "team-b",
      name: "drover-sandbox",
    });
    expect(policy.spec).toMatchObject({ policyTypes: ["Ingress", "Egress"] });
    const there = { matchLabels: { "kubernetes.io/metadata.name": "drover" } };
    expect(policy.spec).toMatchObject({
      ingress: [{ from: [{ namespaceSelector: there }], ports: [{ port: 7080 }] }],
      egress: [{ to: [{ namespaceSelector: there }], ports: [{ port: 7080 }] }],
    });
    // What was applied is what is stored: an apply that differs from it would wake its own controller
    // and be made again, for ever. More sessions wake it too; no pass may change anything.
    for (const name of ["more-1", "more-2"]) {
      await rig.apply(aSession(name, {}, "team-b"));
      await eventually("its session", async () => {
        const text = await rig.kubectlOk(["-n", "team-b", "get", "ags", name, "-o", "json"]);
        return text.includes("drover.dev/session-id");
      });
    }
    const later = await rig.client.get(networkPolicies, {
      namespace: "team-b",
      name: "drover-sandbox",
    });
    expect(later.metadata.resourceVersion).toBe(policy.metadata.resourceVersion);

    await rig.kubectlOk(["-n", "team-b", "delete", "ags", "--all", "--timeout=30s"]);

    await eventually("it is gone", async () => (await get("networkpolicy")).code !== 0);
    await eventually("it is gone", async () => (await get("serviceaccount")).code !== 0);
  });

  it("a pool becomes a Deployment that the API server takes, with both containers and no secret in the harness", async () => {
    const text = await rig.kubectlOk([
      "-n",
      "drover",
      "get",
      "deployment",
      "drover-harness-default",
      "-o",
      "json",
    ]);
    const pool = await rig.pool();

    expect(JSON.parse(text)).toMatchObject({
      metadata: { ownerReferences: [{ kind: "HarnessPool", name: "default" }] },
      spec: { replicas: 2, template: { spec: { serviceAccountName: "drover-pool-default" } } },
    });
    expect(pool.status).toMatchObject({
      code: expect.stringMatching(/^[0-9a-z]{4}$/),
      replicas: 0,
    });
    expect(conditionOf(pool, "IsolationVerified")?.status).toBe("Unknown");
    expect(conditionOf(pool, "VaultIdentity")?.reason).toBe("NotRequired");
  });

  it("a pool whose model key is in a vault, where the install has none, stalls and says what to set", async () => {
    await rig.apply({
      ...aPool({ model: { apiKeyVaultRef: { path: "pools/keyed/model" } } }),
      metadata: { name: "keyed", namespace: "drover" },
    });

    const stalled = await eventually("a stalled pool", async () => {
      const pool = await rig.client.get(harnessPools, { namespace: "drover", name: "keyed" });
      return conditionOf(pool, "Stalled");
    });
    expect(stalled).toMatchObject({ status: "True", reason: "InvalidSpec" });
    expect(stalled?.message).toContain("set vault.address of the chart");
  });

  it("the edge is a Deployment that the API server takes, and is written once", async () => {
    const edge = await eventually("the edge", () =>
      rig.client.get(deployments, { namespace: "drover", name: "drover-edge" }),
    );
    expect(edge.spec).toMatchObject({
      replicas: 2,
      template: { spec: { serviceAccountName: "drover-edge" } },
    });
    // As the deployment controller: its status wakes the operator, whose apply must change nothing.
    const status = { replicas: 2, readyReplicas: 1 };
    const told = await rig.client.patchStatus(deployments, edge.metadata, status);
    await sleep(1_000);

    const later = await rig.client.get(deployments, edge.metadata);
    expect(later.metadata.resourceVersion).toBe(told.metadata.resourceVersion);
  });

  it("kubectl scale reaches the Deployment", async () => {
    await rig.kubectlOk(["-n", "drover", "scale", "harnesspool", "default", "--replicas=5"]);

    const replicas = await eventually("five", async () => {
      const text = await rig.kubectlOk([
        "-n",
        "drover",
        "get",
        "deployment",
        "drover-harness-default",
        "-o",
        "jsonpath={.spec.replicas}",
      ]);
      return text === "5" && text;
    });
    expect(replicas).toBe("5");
  });

  it("a vault tells of each entry what the proxies found, and the API server takes it", async () => {
    const url = (name: string) => `https://${name}.example.com/mcp`;
    const names = ["read", "gone", "never"];
    const role = ["create", "role", "told", "--verb=get", "--resource=secrets"];
    const secrets = names.map((name) => `--resource-name=${name}-token`);
    await rig.kubectlOk(["-n", "team-a", ...role, ...secrets]);
    // Each pool that may serve the namespace must be able to read a vault, those of other tests too.
    const pools = await rig.client.list(harnessPools, { namespace: "drover" });
    const accounts = pools.items.map(
      ({ metadata }) => `--serviceaccount=drover:drover-pool-${metadata.name}`,
    );
    const binding = ["rolebinding", "told", "--role=told", ...accounts];
    await rig.kubectlOk(["-n", "team-a", "create", ...binding]);
    rig.reports.set(
      "team-a/told",
      new Map([
        [
          "read",
          { ok: true, reason: "Resolved", message: "", version: "7", ts: 1_700_000_000_000 },
        ],
        [
          "gone",
          {
            ok: false,
            reason: "CredentialNotFound",
            message: "x".repeat(1024),
            ts: 1_700_000_000_000,
          },
        ],
      ]),
    );
    await rig.apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "CredentialVault",
      metadata: { name: "told", namespace: "team-a" },
      spec: {
        entries: [
          ...names.map((name) => ({
            name,
            mcpServerUrl: url(name),
            secretRef: { name: `${name}-token` },
          })),
          { name: "vaulted", mcpServerUrl: url("vaulted"), vaultRef: { path: "docs" } },
        ],
      },
    });

    const entries = await eventually("entries that were read", async () => {
      const text = await rig.kubectlOk(["-n", "team-a", "get", "cvt", "told", "-o", "json"]);
      const found: { name: string; resolved: string }[] = JSON.parse(text).status?.entries ?? [];
      return found[0]?.resolved === "True" && found;
    });

    expect(entries).toEqual([
      {
        name: "read",
        resolved: "True",
        reason: "Resolved",
        message: "",
        version: "7",
        lastReadTime: "2023-11-14T22:13:20Z",
      },
      {
        name: "gone",
        resolved: "False",
        reason: "CredentialNotFound",
        message: "x".repeat(1024),
        lastReadTime: "2023-11-14T22:13:20Z",
      },
      expect.objectContaining({ name: "never", resolved: "Unknown", reason: "NotChecked" }),
      expect.objectContaining({ name: "vaulted", resolved: "False", reason: "InvalidReference" }),
    ]);
  });

  it("a vault whose Secret the pool's account may not read says how to grant it, and the grant works", async () => {
    await rig.apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "CredentialVault",
      metadata: { name: "vault", namespace: "team-a" },
      spec: {
        entries: [
          {
            name: "mcp",
            mcpServerUrl: "https://mcp.example.com/mcp",
            secretRef: { name: "mcp-token" },
          },
        ],
      },
    });
    const message = await eventually("AccessDenied", async () => {
      const text = await rig.kubectlOk(["-n", "team-a", "get", "cvt", "vault", "-o", "json"]);
      const ready = JSON.parse(text).status?.conditions?.find(
        (one: { type: string }) => one.type === "Ready",
      );
      return ready?.reason === "AccessDenied" && String(ready.message);
    });
    const grant = message.slice(message.indexOf("kubectl "));
    for (const command of grant.split(" && ")) {
      await rig.kubectlOk(command.split(" ").slice(1));
    }

    expect(message).toContain("drover:drover-pool-default");
    await rig.kubectlOk([
      "-n",
      "team-a",
      "wait",
      "cvt/vault",
      "--for=condition=Ready",
      "--timeout=40s",
    ]);
  });
});

describe("many sessions", () => {
  it("20 sessions cost one finalizer patch and at most two status writes and two Events each", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `many-${i}`);
    await rig.apply(...names.map((name) => aSession(name)));
    for (const name of names) await finish(await rig.claim(name));
    await rig.kubectlOk([
      "-n",
      "team-a",
      "wait",
      "ags",
      ...names,
      "--for=condition=Completed",
      "--timeout=60s",
    ]);
    await sleep(1_000);

    const writes = new Map<string, number>();
    for (const line of (await readFile(api.auditLogPath ?? "", "utf8")).split("\n")) {
      if (line === "") continue;
      const { verb, objectRef, userAgent, responseStatus } = JSON.parse(line);
      if (!userAgent?.startsWith("drover-operator") || responseStatus?.code >= 300) continue;
      if (!["create", "patch", "update", "delete"].includes(verb)) continue;
      const name = /^(many-\d+)/.exec(objectRef?.name ?? "")?.[1];
      if (name === undefined) continue;
      const key = `${name} ${verb} ${objectRef.resource}/${objectRef.subresource ?? ""}`;
      writes.set(key, (writes.get(key) ?? 0) + 1);
    }
    for (const name of names) {
      expect(writes.get(`${name} patch agentsessions/`)).toBe(1);
      expect(writes.get(`${name} patch agentsessions/status`)).toBeLessThanOrEqual(2);
      expect(writes.get(`${name} create events/`) ?? 0).toBeLessThanOrEqual(2);
    }
    expect([...writes.values()].reduce((sum, n) => sum + n, 0)).toBeLessThanOrEqual(20 * 5);
  }, 120_000);
});

describe("uninstall", () => {
  it("cleanup leaves the sessions and nothing the operator made", async () => {
    await rig.stop();

    await cleanUp(
      {
        client: rig.client,
        clock: systemClock,
        logger: silentLogger,
        namespace: "drover",
        operator: "drover-operator",
      },
      AbortSignal.timeout(30_000),
    );

    // A pod on a node is still ending when its deletion has been asked for.
    await eventually("nothing of the operator's left", async () => {
      const left = await rig.kubectlOk([
        "get",
        "pods,networkpolicies,serviceaccounts,deployments,poddisruptionbudgets",
        "-A",
        "-l",
        "app.kubernetes.io/managed-by=drover-operator",
        "-o",
        "name",
      ]);
      return left.trim() === "";
    });
    const sessions = await rig.kubectlOk([
      "get",
      "ags",
      "-A",
      "-o",
      "jsonpath={.items[*].metadata.finalizers}",
    ]);
    expect(sessions.trim()).toBe("");
    expect(
      (await rig.kubectlOk(["get", "ags", "-A", "-o", "name"])).split("\n").length,
    ).toBeGreaterThan(5);
  });
});

async function finish(lease: Lease): Promise<void> {
  await lease.emitEvents(
    [
      {
        id: `sevt_idle_${lease.ref.id}`,
        type: "session.status_idle",
        data: { stop_reason: "end_turn" },
      },
    ],
    { release: { kind: "idle", why: "end_turn" } },
  );
}

/** A session that has asked for its first sandbox. */
async function withPod(
  name: string,
  spec: Record<string, unknown> = {},
): Promise<{ lease: Lease; pod: Pod }> {
  await rig.apply(aSession(name, spec));
  const lease = await rig.claim(name);
  await rig.ask(lease, 1);
  const pod = await eventually(`the pod of ${name}`, async () => (await podsOf(name))[0]);
  return { lease, pod };
}

async function sandboxEventsOf(lease: Lease): Promise<string[]> {
  const types: string[] = [];
  for await (const { type } of rig.store.log.getEvents(lease.ref)) {
    if (type.startsWith("sandbox.")) types.push(type);
  }
  return types;
}

async function warningsOf(name: string): Promise<KubeEvent[]> {
  const { items } = await rig.client.list(events, { namespace: "team-a" });
  return items.filter(({ type, regarding }) => type === "Warning" && regarding.name === name);
}

async function podsOf(name: string): Promise<Pod[]> {
  return rig.pods(await rig.session(name));
}
