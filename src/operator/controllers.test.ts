import { afterEach, describe, expect, it } from "@jest/globals";
import { anInstall } from "../../test/builders/install.ts";
import {
  anAgent,
  aPool,
  aSession,
  aTemplate,
  aVault,
  CREATED_MS,
} from "../../test/builders/kinds.ts";
import { anOperator, aWorld } from "../../test/builders/operator-on-fakes.ts";
import { aContainer } from "../../test/builders/pods.ts";
import { KubeError } from "../kube/errors.ts";
import { configMaps } from "../kube/resources.ts";
import { AppError } from "../runtime/errors.ts";
import type { Lease, OperatorLog, SessionRef, WakeQueue } from "../sessions/session-log.ts";
import { LOGS_TO_ERASE } from "./agent-session/erasures.ts";
import {
  type AgentSession,
  agentSessions,
  agents,
  type ContainerStatus,
  credentialVaults,
  deployments,
  harnessPools,
  type Pod,
  pods,
  sandboxTemplates,
} from "./kinds.ts";

import { sandboxPodName } from "./names.ts";

const TO_ERASE = { namespace: "drover", name: LOGS_TO_ERASE };

type Operator = ReturnType<typeof anOperator>;

const stop: AbortController[] = [];
afterEach(() => {
  for (const one of stop.splice(0)) one.abort();
});

async function started(operator: Operator, session = aSession()): Promise<Operator> {
  const { kube, manager, clock } = operator;
  const controller = new AbortController();
  stop.push(controller);
  await kube.create(harnessPools, { ...aPool(), status: { readyReplicas: 2 } });
  await kube.create(agents, anAgent());
  await kube.create(sandboxTemplates, aTemplate());
  await kube.create(agentSessions, session);
  void manager.run(controller.signal);
  await clock.advance(2_000);
  return operator;
}

function sessionOf({ kube }: Operator, name = "hello"): Promise<AgentSession> {
  return kube.get(agentSessions, { namespace: "team-a", name });
}

async function podsOf({ kube }: Operator): Promise<Pod[]> {
  return (await kube.list(pods, { namespace: "team-a" })).items;
}

/** As a harness: holds the session. */
async function claim(
  { store, clock }: Operator,
  queue: WakeQueue = store.queue("worker"),
): Promise<Lease> {
  const claims = queue.claim({
    capacity: () => 1,
    signal: AbortSignal.timeout(30_000),
  });
  const next = claims[Symbol.asyncIterator]().next();
  await clock.advance(500);
  const { value } = await next;
  for await (const event of value.getEvents()) void event;
  return value;
}

/** A second session, whose log nothing may touch. */
async function kept(operator: Operator): Promise<SessionRef> {
  await operator.kube.create(agentSessions, aSession({}, "kept"));
  await operator.clock.advance(2_000);
  return (await claim(operator)).ref;
}

/** The process of the operator before ends, and this one begins in its place. */
async function restarted({ manager, clock }: Operator): Promise<void> {
  for (const one of stop.splice(0)) one.abort();
  await clock.advance(1_000);
  const controller = new AbortController();
  stop.push(controller);
  void manager.run(controller.signal);
  await clock.advance(1_000);
}

/** As a session that kills whoever works on it, until it is put aside. */
async function killWorkers({ store, clock }: Operator, { ref }: Lease): Promise<void> {
  // Takeovers without progress pause for up to a minute: most of these workers get nothing.
  for (let died = 0; died < 40; died += 1) {
    const [state] = await store.operator.statusOf([ref]);
    if (state?.status !== "created") return;
    const queue = store.queue(`worker-${died}`);
    const dead = new AbortController();
    const claims = queue.claim({ capacity: () => 1, signal: dead.signal });
    void claims[Symbol.asyncIterator]().next();
    await clock.advance(5_000);
    dead.abort();
    await queue.close();
  }
  throw new Error("the session is not put aside");
}

async function ask(lease: Lease, generation = 1): Promise<void> {
  const data = { hand: "sandbox", generation, template: "node" };
  const id = `sevt_ask_${generation}`;
  await lease.emitEvents([{ id, type: "sandbox.requested", data }]);
}

async function typesIn({ store }: Operator, lease: Lease): Promise<string[]> {
  const types: string[] = [];
  for await (const { type } of store.log.getEvents(lease.ref)) types.push(type);
  return types;
}

const timeout = () => new KubeError("the server answered 504", { status: 504, reason: "Timeout" });
const cut = () => new KubeError("the connection broke", { status: 0, reason: "Unreachable" });

describe("making a sandbox pod", () => {
  it.each([
    { name: "is answered 504 and was done", error: timeout(), afterwards: true },
    { name: "is answered 504 and was not done", error: timeout(), afterwards: false },
    { name: "was done and its answer is lost", error: cut(), afterwards: true },
  ])("that $name ends with one pod and a provisioned sandbox", async ({ error, afterwards }) => {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    operator.kube.fail("create", "Pod", error, 1, { afterwards });

    await ask(lease);
    await operator.clock.advance(5_000);
    await kubeletStarts(operator);
    await operator.clock.advance(2_000);

    expect(await podsOf(operator)).toHaveLength(1);
    expect(await typesIn(operator, lease)).toContain("sandbox.provisioned");
    expect(operator.kube.requestsOf("create", "Pod").length).toBeLessThanOrEqual(2);
  });

  it("that meets a stranger's pod by that name does not take it, and says so at the deadline", async () => {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    const real = anOperatorPodName(lease);
    await operator.kube.create(pods, {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: real, namespace: "team-a" },
      spec: { containers: [{ name: "evil" }] },
    });

    await ask(lease);
    await operator.clock.advance(130_000);

    expect(await podsOf(operator)).toHaveLength(1);
    expect((await podsOf(operator))[0]?.spec.containers[0]?.name).toBe("evil");
    expect(await typesIn(operator, lease)).toContain("sandbox.lost");
    expect(operator.events.find(({ reason }) => reason === "SandboxLost")?.note).toContain(
      "exists and is nobody's",
    );
  });
});

describe("a sandbox given back while it is being announced", () => {
  it("is deleted: the pass that made it had not seen the release", async () => {
    const during = { call: async (): Promise<void> => {} };
    const operator = await started(anOperator((log) => ahead(log, "bindSandbox", during)));
    const lease = await claim(operator);
    await ask(lease);
    await operator.clock.advance(2_000);
    during.call = async () => {
      during.call = async () => {};
      const data = { hand: "sandbox", generation: 1, reason: "changed" };
      await lease.emitEvents([{ id: "sevt_back", type: "sandbox.released", data }]);
      await operator.clock.advance(1_500);
    };
    await kubeletStarts(operator);
    await operator.clock.advance(20_000);

    expect(await typesIn(operator, lease)).toContain("sandbox.provisioned");
    expect(await podsOf(operator)).toEqual([]);
  });
});

describe("waiting for a sandbox", () => {
  const readyOf = async (operator: Operator) =>
    (await sessionOf(operator)).status?.conditions?.find(({ type }) => type === "Ready");
  const quota = () =>
    new KubeError('pods "hello" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0', {
      status: 403,
      reason: "Forbidden",
    });
  const webhook = () =>
    new KubeError('Internal error occurred: failed calling webhook "policy.example"', {
      status: 500,
      reason: "InternalError",
    });

  /** A session whose first status is written, and which asks for its first sandbox now. */
  async function asking(operator: Operator): Promise<Lease> {
    await started(operator);
    const lease = await claim(operator);
    await operator.clock.advance(40_000);
    await ask(lease);
    return lease;
  }

  it.each([
    { name: "a quota", error: quota(), reason: "QuotaExceeded", words: "exceeded quota: q" },
    { name: "a webhook", error: webhook(), reason: "PodRefused", words: "failed calling webhook" },
  ])("for $name is said within 5 s, in its own words, and heals", async (given) => {
    const operator = anOperator();
    operator.kube.fail("create", "Pod", given.error, 1_000);
    await asking(operator);
    await operator.clock.advance(5_000);
    const said = await readyOf(operator);
    await operator.clock.advance(15_000);
    operator.kube.stopFailing();
    await operator.clock.advance(10_000);
    await kubeletStarts(operator);
    await operator.clock.advance(10_000);

    const { reason, words } = given;
    const note = expect.stringContaining(words);
    expect(said).toMatchObject({ status: "False", reason, message: note });
    expect(operator.events.filter((event) => event.type === "Warning")).toMatchObject([
      { reason, note },
    ]);
    expect(await readyOf(operator)).toMatchObject({ status: "True", reason: "Running" });
  });

  it("for a node is said with the scheduler's words", async () => {
    const operator = anOperator();
    await asking(operator);
    await operator.clock.advance(500);
    const [pod] = await podsOf(operator);
    const condition = { type: "PodScheduled", status: "False", message: "0/1 nodes available" };
    await operator.kube.patchStatus(pods, pod?.metadata ?? { name: "" }, {
      conditions: [{ ...condition, reason: "Unschedulable" }],
    });
    await operator.clock.advance(4_500);

    expect(await readyOf(operator)).toMatchObject({
      reason: "Unschedulable",
      message: expect.stringContaining("0/1 nodes available"),
    });
  });

  it("for a name that somebody's pod has is said with that pod's name", async () => {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    const name = anOperatorPodName(lease);
    const metadata = { name, namespace: "team-a" };
    const spec = { containers: [{ name: "evil" }] };
    operator.kube.seed(pods, { apiVersion: "v1", kind: "Pod", metadata, spec });
    await ask(lease);
    await operator.clock.advance(5_500);

    expect(await readyOf(operator)).toMatchObject({
      reason: "PodRefused",
      message: expect.stringContaining(`Pod "team-a/${name}" exists and is nobody's`),
    });
  });

  it("costs no write when the sandbox comes up within 5 s", async () => {
    const operator = anOperator();
    await asking(operator);
    await operator.clock.advance(4_000);
    await kubeletStarts(operator);
    await operator.clock.advance(60_000);

    const writes = operator.kube.requestsOf("patchStatus", "AgentSession");
    expect(JSON.stringify(writes)).not.toContain("waits for its sandbox");
    // Pending, then Running.
    expect(writes).toHaveLength(2);
    expect(operator.events.map(({ reason }) => reason)).toEqual(["SandboxProvisioned"]);
  });
});

describe("the end of a sandbox pod that takes its time", () => {
  const lossesIn = async (operator: Operator, lease: Lease) => {
    const losses: unknown[] = [];
    for await (const { type, data } of operator.store.log.getEvents(lease.ref)) {
      if (type === "sandbox.lost") losses.push(data);
    }
    return losses;
  };

  async function inUse(): Promise<{ operator: Operator; lease: Lease }> {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    await ask(lease);
    await operator.clock.advance(2_000);
    await kubeletStarts(operator);
    await operator.clock.advance(2_000);
    return { operator, lease };
  }

  it("after a refusal is told once, with the reason of the refusal", async () => {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    await ask(lease);
    await operator.clock.advance(2_000);
    const state = { waiting: { reason: "ImagePullBackOff", message: "no such image" } };
    await kubeletSays(operator, aContainer({ ready: false, state }));
    await operator.clock.advance(20_000);

    expect(await lossesIn(operator, lease)).toMatchObject([{ reason: "ImagePullFailed" }]);
    expect(operator.events.filter(({ reason }) => reason === "SandboxLost")).toHaveLength(1);
    expect(await podsOf(operator)).toEqual([]);
  });

  it("that the harness gave back is told to nobody", async () => {
    const { operator, lease } = await inUse();
    const data = { hand: "sandbox", generation: 1, reason: "Unreachable" };
    await lease.emitEvents([{ id: "sevt_back", type: "sandbox.released", data }]);
    await operator.clock.advance(20_000);

    expect(await lossesIn(operator, lease)).toEqual([]);
    expect(await podsOf(operator)).toEqual([]);
  });

  it("that somebody else deleted is told at once, and once", async () => {
    const { operator, lease } = await inUse();
    const [pod] = await podsOf(operator);
    await operator.kube.delete(pods, pod?.metadata ?? { name: "" });
    await operator.clock.advance(1_000);
    const soon = await lossesIn(operator, lease);
    await operator.clock.advance(20_000);

    expect(soon).toMatchObject([{ reason: "PodDeleted" }]);
    expect(await lossesIn(operator, lease)).toMatchObject([{ reason: "PodDeleted" }]);
    expect(await operator.store.ports.readBinding(pod?.metadata.uid ?? "")).toBeNull();
  });

  it("that vanished without terminating is told too", async () => {
    const { operator, lease } = await inUse();
    const [pod] = await podsOf(operator);
    operator.kube.vanish(pods, pod?.metadata ?? { name: "" });
    await operator.clock.advance(2_000);

    expect(await lossesIn(operator, lease)).toMatchObject([{ reason: "PodDeleted" }]);
  });

  it("of a deleted session is told to nobody, and the session waits for it", async () => {
    const { operator } = await inUse();
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(3_000);
    const held = await sessionOf(operator);
    await operator.clock.advance(20_000);

    expect(held.metadata.finalizers).toEqual(["drover.dev/session"]);
    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(operator.events.filter(({ type }) => type === "Warning")).toEqual([]);
  });
});

describe("a pod that is labelled like a sandbox and that no session owns", () => {
  it.each([
    { name: "of a session that is there", ended: false },
    { name: "of a session that is deleted", ended: true },
  ])("$name is never deleted", async ({ ended }) => {
    const operator = await started(anOperator());
    const lease = await claim(operator);
    await ask(lease);
    await operator.clock.advance(2_000);
    const [{ metadata, spec } = { metadata: { name: "" }, spec: { containers: [] } }] =
      await podsOf(operator);
    const copied = { ...metadata, name: "foreign", ownerReferences: [] };
    const object = { apiVersion: "v1", kind: "Pod", metadata: copied, spec };
    operator.kube.seed(pods, object);
    if (ended) await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(200_000);

    expect((await podsOf(operator)).map((pod) => pod.metadata.name)).toContain("foreign");
    expect(operator.kube.requestsOf("delete", "Pod").map((call) => call.name)).not.toContain(
      "foreign",
    );
  });
});

describe("the release of an idle session's sandbox", () => {
  /** Idle with a sandbox for longer than the template allows; `meanwhile` runs after the look, before the release. */
  async function idle(meanwhile: (operator: Operator, lease: Lease) => Promise<void>) {
    const during = { call: async (): Promise<void> => {} };
    const operator = await started(anOperator((log) => ahead(log, "emitWhileIdle", during)));
    const lease = await claim(operator);
    await ask(lease);
    await operator.clock.advance(2_000);
    await kubeletStarts(operator);
    await operator.clock.advance(2_000);
    for await (const event of lease.getEvents({ after: lease.position().seq })) void event;
    const idled = { id: "sevt_i", type: "session.status_idle", data: { stop_reason: "end_turn" } };
    await lease.emitEvents([idled], { release: { kind: "idle", why: "end_turn" } });
    during.call = async () => {
      during.call = async () => {};
      await meanwhile(operator, lease);
    };
    await operator.clock.advance(320_000);
    const [pod] = await podsOf(operator);
    const binding = await operator.store.ports.readBinding(pod?.metadata.uid ?? "");
    return { pod, binding, operator, types: await typesIn(operator, lease) };
  }

  it("is said, unbinds it and deletes the pod", async () => {
    const { pod, binding, types } = await idle(async () => {});

    expect(types).toContain("sandbox.released");
    expect({ pod, binding }).toEqual({ pod: undefined, binding: null });
  });

  it("is no loss: not while the pod ends, not when it is gone", async () => {
    const { pod, types, operator } = await idle(async () => {});

    expect(operator.kube.requestsOf("delete", "Pod")).toHaveLength(1);
    expect({ pod, types: types.filter((type) => type.startsWith("sandbox.")) }).toEqual({
      pod: undefined,
      types: ["sandbox.requested", "sandbox.provisioned", "sandbox.released"],
    });
    expect(operator.events.filter(({ type }) => type === "Warning")).toEqual([]);
    expect(await operator.registry.metrics()).not.toMatch(/drover_sandbox_lost_total\{.*\} [1-9]/);
  });

  it("does not happen when the session woke since the operator looked", async () => {
    const { pod, binding, types } = await idle(async ({ store }, { ref }) => {
      const message = { id: "sevt_m", type: "user.message", data: { content: [] } };
      await store.log.emitEvents(ref, [message], { idempotencyKey: "m" });
    });

    expect(types).not.toContain("sandbox.released");
    expect(pod?.metadata.deletionTimestamp).toBeUndefined();
    expect(binding).toMatchObject({ hand: "sandbox", generation: 1 });
  });
});

describe("a store that is down", () => {
  it("lets a deleted session go after its time, and says what is left", async () => {
    const broken = { on: false };
    const operator = await started(anOperator((log) => breakable(log, broken)));
    broken.on = true;
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });

    await operator.clock.advance(15_000);
    const held = await sessionOf(operator);
    await operator.clock.advance(60_000);

    expect(held.metadata.finalizers).toEqual(["drover.dev/session"]);
    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(operator.events.map(({ reason }) => reason)).toContain("CleanupForced");
  });

  it.each([
    { name: "by the same operator", restarts: false },
    { name: "by the next operator process", restarts: true },
  ])("erases the log of such a session when it is back, $name", async ({ restarts }) => {
    const broken = { on: false };
    const world = aWorld();
    const make = () => anOperator((log) => breakable(log, broken), anInstall(), world);
    const operator = await started(make());
    const { ref } = await claim(operator);
    const other = await kept(operator);
    broken.on = true;
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(60_000);
    const left = await operator.store.log.getSession(ref);
    const noted = await operator.kube.get(configMaps, TO_ERASE);
    if (restarts) await restarted(make());
    broken.on = false;
    await operator.clock.advance(30_000);

    expect(left).not.toBeNull();
    expect(Object.keys(noted.data ?? {})).toEqual([ref.id]);
    expect(operator.events.find(({ reason }) => reason === "CleanupForced")?.note).toContain(
      `log ${ref.id} is erased as soon as Redis can be used`,
    );
    expect(await operator.store.log.getSession(ref)).toBeNull();
    expect(await operator.store.log.getSession(other)).not.toBeNull();
    expect((await operator.kube.get(configMaps, TO_ERASE)).data).toEqual({});
  });

  it("erases no log that was made for another object", async () => {
    const broken = { on: false };
    const operator = await started(
      anOperator((log) =>
        breakable(withSnapshots(log, { name: "other", uid: "uid-of-another" }), broken),
      ),
    );
    const { ref } = await claim(operator);
    broken.on = true;
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(60_000);
    broken.on = false;
    await operator.clock.advance(30_000);

    expect(await operator.store.log.getSession(ref)).not.toBeNull();
    expect((await operator.kube.get(configMaps, TO_ERASE)).data).toEqual({});
  });

  it("lets it go also when that cannot be noted, and says what stays", async () => {
    const broken = { on: false };
    const operator = await started(anOperator((log) => breakable(log, broken)));
    broken.on = true;
    operator.kube.fail("patch", "ConfigMap", cut(), 1000);
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(60_000);

    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(operator.events.find(({ reason }) => reason === "CleanupForced")?.note).toContain(
      "delete its keys by hand",
    );
  });

  it("is a condition of the sessions that it holds up, told one by one, until it is back", async () => {
    const broken = { on: false };
    const operator = await started(anOperator((log) => breakable(log, broken)));
    await workers(operator, 1);
    await ask(await claim(operator));
    await operator.clock.advance(60_000);
    const idle = aSession({}, "idle");
    operator.kube.seed(agentSessions, {
      ...idle,
      status: { observedGeneration: 1, state: "Idle" },
    });
    broken.on = true;
    operator.outage.problem = "down for the test";
    await operator.clock.advance(9_000);
    const soon = await sessionOf(operator);
    await operator.clock.advance(30_000);
    const writes = operator.kube.requestsOf("patchStatus", "AgentSession").length;
    const during = await sessionOf(operator);
    await operator.clock.advance(120_000);
    const later = operator.kube.requestsOf("patchStatus", "AgentSession").length;
    const resting = await sessionOf(operator, "idle");
    broken.on = false;
    operator.outage.problem = undefined;
    await operator.clock.advance(35_000);

    const ready = ({ status }: AgentSession) =>
      status?.conditions?.find(({ type }) => type === "Ready");
    expect(ready(soon)).toMatchObject({ status: "True", reason: "Running" });
    expect(during.status?.state).toBe("Running");
    expect(ready(during)).toMatchObject({
      status: "False",
      reason: "RedisUnreachable",
      message: expect.stringContaining("down for the test"),
    });
    expect(later).toBe(writes);
    expect(ready(resting)).toBeUndefined();
    expect(ready(await sessionOf(operator))).toMatchObject({ status: "True" });
  });

  it("is a condition of a session that waits for it, which starts when it is back", async () => {
    const broken = { on: false };
    const operator = anOperator((log) => breakable(log, broken));
    await started(operator, aSession({}, "first"));
    broken.on = true;
    await operator.kube.create(agentSessions, aSession({}, "second"));
    await operator.clock.advance(12_000);
    const waiting = await sessionOf(operator, "second");
    broken.on = false;
    await operator.clock.advance(12_000);

    expect(waiting.status?.conditions?.find(({ type }) => type === "Ready")).toMatchObject({
      status: "False",
      reason: "RedisUnreachable",
      message: expect.stringContaining("down for the test"),
    });
    expect((await sessionOf(operator, "second")).metadata.finalizers).toEqual([
      "drover.dev/session",
    ]);
  });
});

describe("a log that is gone", () => {
  const ready = async (operator: Operator) =>
    (await sessionOf(operator)).status?.conditions?.find(({ type }) => type === "Ready");

  it("shows on its session also while that rests, and goes when the log is back", async () => {
    const gone = { on: false };
    const operator = await started(anOperator((log) => withoutLogs(log, gone)));
    const lease = await claim(operator);
    await lease.release({ kind: "idle", why: "end_turn" });
    await operator.clock.advance(20_000);
    const before = await ready(operator);
    gone.on = true;
    await operator.clock.advance(70_000);
    const without = await ready(operator);
    gone.on = false;
    await operator.clock.advance(70_000);

    expect(before).toMatchObject({ status: "True", reason: "Idle" });
    expect(without).toMatchObject({
      status: "False",
      reason: "LogLost",
      message: expect.stringContaining("restore it from a backup, or delete this AgentSession"),
    });
    expect(await ready(operator)).toMatchObject({ status: "True", reason: "Idle" });
  });
});

describe("a copied manifest", () => {
  it("gets a log of its own, and its deletion leaves that of the original alone", async () => {
    const operator = await started(anOperator());
    const original = await sessionOf(operator);
    const lease = await claim(operator);
    const copy = aSession({ operatingMode: "Stopped" }, "copy");
    await operator.kube.create(agentSessions, {
      ...copy,
      metadata: { ...copy.metadata, annotations: original.metadata.annotations ?? {} },
    });
    await operator.clock.advance(10_000);
    await operator.kube.patch(
      agentSessions,
      { namespace: "team-a", name: "copy" },
      { kind: "merge", body: { spec: { operatingMode: "Running" } } },
    );
    await operator.clock.advance(10_000);
    const pinned = (await sessionOf(operator, "copy")).metadata.annotations;
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "copy" });
    await operator.clock.advance(10_000);

    expect(Object.values(pinned ?? {})).not.toContain(lease.ref.id);
    await expect(sessionOf(operator, "copy")).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await typesIn(operator, lease)).toEqual(["session.created", "user.message"]);
  });

  it("with an id that is none starts like any other", async () => {
    const session = aSession();
    session.metadata.annotations = { "drover.dev/session-id": "no id: at all" };
    const operator = await started(anOperator(), session);

    expect((await claim(operator)).ref.id).toMatch(/^sesn_/);
  });

  it("whose log was made for another object is neither followed nor erased", async () => {
    const operator = await started(
      anOperator((log) => withSnapshots(log, { name: "other", uid: "uid-of-another" })),
    );
    const lease = await claim(operator);
    await operator.kube.delete(agentSessions, { namespace: "team-a", name: "hello" });
    await operator.clock.advance(10_000);

    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await typesIn(operator, lease)).toEqual(["session.created", "user.message"]);
  });
});

describe("a vault under a session", () => {
  const at = { namespace: "team-a", name: "vault" };
  const vaults = async (operator: Operator) =>
    (await sessionOf(operator)).status?.conditions?.find(({ type }) => type === "VaultsResolved");
  const reviewed = () => aVault({ entries: [{ ...entry, vaultRef: { path: "mcp" } }] });
  const entry = { name: "mcp", mcpServerUrl: "https://mcp.example.com/mcp" };

  async function withVault(idle: boolean): Promise<Operator> {
    const vault = { address: "https://vault.example", sessionIdentity: "session" as const };
    const operator = anOperator((log) => log, anInstall({ vault }));
    await operator.kube.create(credentialVaults, reviewed());
    await started(operator, aSession({ vaultRefs: [{ name: "vault" }] }));
    await operator.clock.advance(2_000);
    const lease = await claim(operator);
    if (idle) {
      const idled = { type: "session.status_idle", data: { stop_reason: "end_turn" } };
      await lease.emitEvents([{ id: "sevt_i", ...idled }], {
        release: { kind: "idle", why: "end_turn" },
      });
    } else await ask(lease);
    await operator.clock.advance(30_000);
    return operator;
  }

  it.each([
    { name: "an idle session", idle: true },
    { name: "a running session", idle: false },
  ])("that is deleted shows on $name within 30 s, and heals by itself", async ({ idle }) => {
    const operator = await withVault(idle);
    const before = await vaults(operator);
    await operator.kube.delete(credentialVaults, at);
    await operator.clock.advance(10_000);
    const during = await vaults(operator);
    await operator.kube.create(credentialVaults, reviewed());
    await operator.clock.advance(10_000);

    expect(before).toMatchObject({ status: "True" });
    expect(during).toMatchObject({
      status: "False",
      reason: "InvalidReference",
      message: expect.stringContaining('credential vault "vault"'),
    });
    expect(await vaults(operator)).toMatchObject({ status: "True", reason: "Resolved" });
    expect(operator.events.filter(({ type }) => type === "Warning")).toMatchObject([
      { reason: "InvalidReference", note: expect.stringContaining('"vault"') },
    ]);
  });

  it("whose value is gone shows on the session, and new sessions start all the same", async () => {
    const operator = await withVault(true);
    const gone = { ok: false, reason: "CredentialNotFound", message: "not there", ts: CREATED_MS };
    operator.reports.set("team-a/vault", new Map([["mcp", gone]]));
    await operator.clock.advance(25_000);
    const during = await vaults(operator);
    const another = aSession({ vaultRefs: [{ name: "vault" }] }, "another");
    await operator.kube.create(agentSessions, another);
    await operator.clock.advance(3_000);

    expect(during).toMatchObject({ status: "False", reason: "CredentialNotFound" });
    expect((await sessionOf(operator, "another")).metadata.finalizers).toHaveLength(1);
  });
});

describe("a pool without workers", () => {
  const pool = { namespace: "drover", name: "default" };
  const readiness = async (operator: Operator) =>
    (await sessionOf(operator)).status?.conditions?.find(({ type }) => type === "Ready");

  async function inMidTurn(): Promise<Operator> {
    const operator = await started(anOperator());
    await workers(operator, 1);
    await ask(await claim(operator));
    await operator.clock.advance(200_000);
    expect(await readiness(operator)).toMatchObject({ status: "True", reason: "Running" });
    return operator;
  }

  it("stalls a session in mid-turn whose worker is gone, until one is back", async () => {
    const operator = await inMidTurn();
    await workers(operator, 0);
    await operator.clock.advance(60_000);
    const soon = await readiness(operator);
    await operator.clock.advance(90_000);
    const late = await readiness(operator);
    await workers(operator, 1);
    await operator.clock.advance(60_000);

    expect(soon).toMatchObject({ reason: "Running" });
    expect(late).toMatchObject({ status: "False", reason: "NoHarness" });
    expect(await readiness(operator)).toMatchObject({ status: "True", reason: "Running" });
  });

  it("that is scaled to zero stalls it at once, with the command that helps", async () => {
    const operator = await inMidTurn();
    await operator.kube.patch(harnessPools, pool, {
      kind: "merge",
      body: { spec: { replicas: 0 } },
    });
    await operator.clock.advance(1_000);

    expect(await readiness(operator)).toMatchObject({
      status: "False",
      reason: "NoHarness",
      message: expect.stringContaining("kubectl scale harnesspool default -n drover --replicas=1"),
    });
  });

  it("stalls it for good when the pool is deleted, also when another takes its name", async () => {
    const operator = await inMidTurn();
    await operator.kube.delete(harnessPools, pool);
    const again = aPool();
    await operator.kube.create(harnessPools, {
      ...again,
      metadata: { ...again.metadata, uid: "uid-of-another-pool" },
      status: { readyReplicas: 2 },
    });
    await operator.clock.advance(150_000);

    expect(await readiness(operator)).toMatchObject({
      reason: "NoHarness",
      message: expect.stringContaining("is deleted"),
    });
  });
});

describe("time", () => {
  it("a finished session with a TTL is deleted with its log when the time is over", async () => {
    const operator = await started(anOperator(), aSession({ ttlSecondsAfterFinished: 60 }));
    const lease = await claim(operator);
    await lease.emitEvents(
      [{ id: "sevt_i", type: "session.status_idle", data: { stop_reason: "end_turn" } }],
      { release: { kind: "idle", why: "end_turn" } },
    );
    await operator.clock.advance(50_000);
    const before = await sessionOf(operator);
    await operator.clock.advance(30_000);

    expect(before.status?.state).toBe("Idle");
    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await operator.store.operator.statusOf([lease.ref])).toEqual([null]);
  });

  it("a session that is put aside after it was told to stop ends all the same, and its TTL runs", async () => {
    const operator = await started(
      anOperator(),
      aSession({ activeDeadlineSeconds: 60, ttlSecondsAfterFinished: 60 }),
    );
    const queue = operator.store.queue("worker");
    const lease = await claim(operator, queue);
    await operator.clock.advance(70_000);
    const asked = await typesIn(operator, lease);

    await queue.close();
    await killWorkers(operator, lease);
    await operator.clock.advance(20_000);
    const ended = await sessionOf(operator);
    await operator.clock.advance(120_000);

    expect(asked).toContain("session.stop_requested");
    expect(ended.status).toMatchObject({ state: "Failed", completionTime: expect.any(String) });
    await expect(sessionOf(operator)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("a session past its deadline is asked to stop", async () => {
    const operator = await started(anOperator(), aSession({ activeDeadlineSeconds: 60 }));
    const lease = await claim(operator);

    await operator.clock.advance(70_000);

    expect(await typesIn(operator, lease)).toContain("session.stop_requested");
  });
});

/** The pool's Deployment has this many ready pods. */
async function workers({ kube, caches }: Operator, ready: number): Promise<void> {
  const [deployment] = caches.deployments.list();
  const status = { observedGeneration: 1, replicas: 2, readyReplicas: ready };
  await kube.patchStatus(deployments, deployment?.metadata ?? { name: "" }, status);
}

function anOperatorPodName(lease: Lease): string {
  return sandboxPodName({
    objectName: "hello",
    sessionId: lease.ref.id,
    hand: "sandbox",
    generation: 1,
  });
}

/** The kubelet's part: the session's pod is ready. */
async function kubeletStarts(operator: Operator): Promise<void> {
  await kubeletSays(operator, aContainer());
}

async function kubeletSays(operator: Operator, container: ContainerStatus): Promise<void> {
  const [pod] = await podsOf(operator);
  await operator.kube.patchStatus(pods, pod?.metadata ?? { name: "" }, {
    podIP: "10.0.0.9",
    containerStatuses: [container],
  });
}

/** Runs `during.call` ahead of each call of this verb. */
function ahead(
  log: OperatorLog,
  verb: keyof OperatorLog,
  during: { call(): Promise<void> },
): OperatorLog {
  return new Proxy(log, {
    get(target, name: keyof OperatorLog) {
      const method = target[name];
      if (name !== verb) return method.bind(target);
      return async (...args: never[]) => {
        await during.call();
        return Reflect.apply(method, target, args);
      };
    },
  });
}

/** Every snapshot says that it was made for this object. */
function withSnapshots(log: OperatorLog, object: { name: string; uid: string }): OperatorLog {
  return new Proxy(log, {
    get(target, name: keyof OperatorLog) {
      if (name === "snapshotOf") {
        return async (ref: SessionRef) => {
          const snapshot = await target.snapshotOf(ref);
          return snapshot && { ...snapshot, object };
        };
      }
      return target[name].bind(target);
    },
  });
}

/** The store has none of its logs while `gone.on`. */
function withoutLogs(log: OperatorLog, gone: { on: boolean }): OperatorLog {
  return new Proxy(log, {
    get(target, name: keyof OperatorLog) {
      if (name === "statusOf") {
        return (refs: SessionRef[]) =>
          gone.on ? Promise.resolve(refs.map(() => null)) : target.statusOf(refs);
      }
      return target[name].bind(target);
    },
  });
}

/** Each verb rejects while `broken.on`. */
function breakable(log: OperatorLog, broken: { on: boolean }): OperatorLog {
  return new Proxy(log, {
    get(target, name: keyof OperatorLog) {
      const verb = target[name];
      if (name === "watchPools" || name === "requests" || name === "changes") {
        return verb.bind(target);
      }
      return (...args: never[]) => {
        if (broken.on) {
          return Promise.reject(new AppError("REDIS_UNREACHABLE", "down for the test"));
        }
        return Reflect.apply(verb, target, args);
      };
    },
  });
}
