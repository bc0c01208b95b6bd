import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { unlessNotFound } from "../../src/kube/errors.ts";
import { EventRecorder } from "../../src/kube/event-recorder.ts";
import { type KubeConfigSource, LiveClient } from "../../src/kube/live-client.ts";
import { Manager } from "../../src/kube/manager.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { type Caches, createCaches } from "../../src/operator/caches.ts";
import { createControllers } from "../../src/operator/controllers.ts";
import {
  type AgentSession,
  agentSessions,
  type HarnessPool,
  harnessPools,
  type Pod,
  pods,
} from "../../src/operator/kinds.ts";
import { createOperatorMetrics } from "../../src/operator/metrics.ts";
import { OPERATOR_CLUSTER_RULES, operatorNamespaceRules } from "../../src/operator/rbac.ts";
import type { EntryReport } from "../../src/protocol/session-ports.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { createMemorySessionStore } from "../../src/sessions/memory/memory-session-store.ts";
import type { Lease, SessionStore } from "../../src/sessions/session-log.ts";
import { anInstall } from "../builders/install.ts";
import type { ApiServer } from "../cluster/api-server.ts";
import { eventually } from "../eventually.ts";

/** How long a pod takes to end, as with a process that catches SIGTERM. */
const TERMINATION_MS = 2_000;

/**
 * The operator's controllers on a real API server with a memory store; the test plays kubelet and
 * harness. A pod that has had a status from the kubelet takes two seconds to end when it is deleted.
 */
export class OperatorRig {
  readonly api: ApiServer;
  /** An administrator's. */
  readonly client: LiveClient;
  /** The operator's: its service account, with the rights of `rbac.ts` and no others. */
  #operatorClient: LiveClient;
  readonly store: SessionStore;
  /** What proxies would tell of credentials: `<namespace>/<vault>` → entry → report. */
  readonly reports = new Map<string, Map<string, EntryReport>>();
  caches: Caches;
  #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();
  readonly #leases = new Map<string, Lease>();
  readonly #harness = new AbortController();
  readonly #harnessDone: Promise<void>;
  #kubeletDone: Promise<void> = Promise.resolve();

  constructor(api: ApiServer) {
    this.api = api;
    this.client = this.#connect({ from: "file", path: api.kubeconfigPath });
    this.#operatorClient = this.client;
    this.store = createMemorySessionStore({
      clock: systemClock,
      rng: systemRng,
      // The machine may be busy: no lease of the test's harness should run out.
      timings: { ttlMs: 60_000, renewMs: 5_000 },
    });
    this.caches = this.#caches();
    this.#harnessDone = this.#work(this.#harness.signal);
  }

  #caches(): Caches {
    const deps = {
      client: this.#operatorClient,
      clock: systemClock,
      rng: systemRng,
      logger: silentLogger,
    };
    return createCaches(deps, "drover");
  }

  /** CRDs, namespaces, the default pool. */
  async install(): Promise<void> {
    for (const file of (await readdir("crds")).filter((name) => name.endsWith(".yaml"))) {
      await this.kubectlOk(
        ["apply", "--server-side", "-f", "-"],
        await readFile(`crds/${file}`, "utf8"),
      );
    }
    await this.kubectlOk(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
    for (const name of ["drover", "team-a", "team-b"]) {
      await this.apply({ apiVersion: "v1", kind: "Namespace", metadata: { name } });
    }
    await this.apply(...grants());
    await this.apply(aPool());
    const token = await this.kubectlOk(["-n", "drover", "create", "token", OPERATOR]);
    this.#operatorClient = this.#connect({ from: "text", text: await this.#kubeconfig(token) });
    this.#kubeletDone = this.#endPods(this.#harness.signal);
  }

  #connect(config: KubeConfigSource): LiveClient {
    return new LiveClient({
      clock: systemClock,
      rng: systemRng,
      config,
      userAgent: "drover-operator/test",
      metrics: createKubeMetrics(new Registry()).restClient,
      logger: silentLogger,
    });
  }

  async #kubeconfig(token: string): Promise<string> {
    const ca = (await readFile(this.api.caPath)).toString("base64");
    return JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "test", cluster: { server: this.api.url, "certificate-authority-data": ca } },
      ],
      users: [{ name: "operator", user: { token: token.trim() } }],
      contexts: [{ name: "test", context: { cluster: "test", user: "operator" } }],
      "current-context": "test",
    });
  }

  /** As kubelet: lets deleted pods go when their processes have had time to end. */
  async #endPods(signal: AbortSignal): Promise<void> {
    const endsAt = new Map<string, number>();
    while (!signal.aborted) {
      const { items } = await this.client.list(pods, {});
      for (const { metadata } of items) {
        const { uid = "", deletionTimestamp } = metadata;
        if (deletionTimestamp === undefined) continue;
        const end = endsAt.get(uid) ?? Date.now() + TERMINATION_MS;
        endsAt.set(uid, end);
        if (end > Date.now()) continue;
        const gone = this.client.delete(pods, metadata, { uid, gracePeriodSeconds: 0 });
        await unlessNotFound(gone);
      }
      await sleep(100, undefined, { signal }).catch(() => {});
    }
  }

  /** One operator process' worth of controllers. */
  start(): void {
    const common = {
      client: this.#operatorClient,
      clock: systemClock,
      rng: systemRng,
      logger: silentLogger,
    };
    this.#stop = new AbortController();
    this.caches = this.#caches();
    const events = new EventRecorder({
      ...common,
      reportingController: "drover.dev/operator",
      reportingInstance: "test",
    });
    const registry = new Registry();
    const { controllers, leaderOnly } = createControllers({
      ...common,
      caches: this.caches,
      log: this.store.operator,
      storeProblem: () => undefined,
      bindings: this.store.ports,
      credentialReports: {
        readCredentialReports: async (namespace, vault) =>
          this.reports.get(`${namespace}/${vault}`) ?? new Map(),
      },
      events,
      metrics: createOperatorMetrics(registry),
      install: anInstall({
        edge: { replicas: 2, inClusterServers: [], resources: { cpu: "50m", memory: "256Mi" } },
      }),
      commit: { mode: "fsync" },
      publicKeys: () => ({ keys: [] }),
      userNamespaces: false,
    });
    const manager = new Manager({
      ...common,
      metrics: createKubeMetrics(registry),
      informers: Object.values(this.caches),
      controllers,
      leaderOnly,
    });
    const { signal } = this.#stop;
    this.#running = this.#run(manager, events, signal);
  }

  async #run(manager: Manager, events: EventRecorder, signal: AbortSignal): Promise<void> {
    try {
      await manager.run(signal);
    } finally {
      await events.close();
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async close(): Promise<void> {
    await this.stop();
    this.#harness.abort();
    await this.#harnessDone;
    await this.#kubeletDone;
    await this.store.close();
    this.client.close();
    this.#operatorClient.close();
  }

  async kubectlOk(args: readonly string[], stdin?: string): Promise<string> {
    const result = await this.api.kubectl(args, stdin);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  async apply(...objects: unknown[]): Promise<void> {
    const list = { apiVersion: "v1", kind: "List", items: objects };
    await this.kubectlOk(["apply", "-f", "-"], JSON.stringify(list));
  }

  session(name: string, namespace = "team-a"): Promise<AgentSession> {
    return this.client.get(agentSessions, { namespace, name });
  }

  async pods(session: AgentSession): Promise<Pod[]> {
    const { items } = await this.client.list(pods, {
      namespace: session.metadata.namespace ?? "",
      labelSelector: `drover.dev/session=${session.metadata.uid}`,
    });
    return items;
  }

  pool(): Promise<HarnessPool> {
    return this.client.get(harnessPools, { namespace: "drover", name: "default" });
  }

  /** As a harness: holds every session that can be claimed, until a test asks for it by its object's name. */
  async #work(signal: AbortSignal): Promise<void> {
    const queue = this.store.queue("worker");
    for await (const lease of queue.claim({ capacity: () => 1000, signal })) {
      const { snapshot } = await lease.getSession();
      for await (const event of lease.getEvents()) void event;
      this.#leases.set(snapshot.object?.name ?? "", lease);
    }
  }

  /** The lease of this session, as soon as it is claimed. */
  async claim(name: string): Promise<Lease> {
    const lease = await eventually(`a claim of ${name}`, async () => this.#leases.get(name));
    this.#leases.delete(name);
    return lease;
  }

  /** As a harness: asks for a sandbox and answers what came of it. */
  async ask(lease: Lease, generation: number, kind: "provision" | "release" = "provision") {
    const data =
      kind === "provision"
        ? { hand: "sandbox", generation, template: "node" }
        : { hand: "sandbox", generation, reason: "Unreachable" };
    const type = kind === "provision" ? "sandbox.requested" : "sandbox.released";
    await lease.emitEvents([{ id: systemRng.id("sevt"), type, data }]);
  }

  /** Waits for an event of one of these types after what the holder has read. */
  async nextEvent(lease: Lease, types: readonly string[]) {
    return eventually(`one of ${types.join(", ")}`, async () => {
      for await (const event of lease.getEvents({ after: lease.position().seq })) {
        if (types.includes(event.type)) return event;
      }
      return undefined;
    });
  }

  /** As scheduler and kubelet. */
  async podStatus(pod: Pod, status: Record<string, unknown>): Promise<void> {
    const { nodeName } = (await this.client.get(pods, pod.metadata)).spec;
    if (nodeName === undefined) await this.#bind(pod);
    await this.client.patchStatus(pods, pod.metadata, status);
  }

  /** Only a pod on a node is given time to end; the API server deletes others at once. */
  async #bind({ metadata: { name, namespace } }: Pod): Promise<void> {
    const target = { apiVersion: "v1", kind: "Node", name: "node-1" };
    await this.kubectlOk(
      ["create", "-f", "-"],
      JSON.stringify({ apiVersion: "v1", kind: "Binding", metadata: { name, namespace }, target }),
    );
  }

  async podReady(pod: Pod, ip = "10.1.2.3"): Promise<void> {
    await this.podStatus(pod, readyStatus(ip));
  }
}

const OPERATOR = "drover-operator";

/** The operator's account and rights, as the chart gives them. */
function grants(): unknown[] {
  const group = "rbac.authorization.k8s.io";
  const rbac = `${group}/v1`;
  const subjects = [{ kind: "ServiceAccount", name: OPERATOR, namespace: "drover" }];
  const metadata = { name: OPERATOR, namespace: "drover" };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: rbac,
      kind: "ClusterRole",
      metadata: { name: OPERATOR },
      rules: OPERATOR_CLUSTER_RULES,
    },
    {
      apiVersion: rbac,
      kind: "ClusterRoleBinding",
      metadata: { name: OPERATOR },
      roleRef: { apiGroup: group, kind: "ClusterRole", name: OPERATOR },
      subjects,
    },
    {
      apiVersion: rbac,
      kind: "Role",
      metadata,
      rules: operatorNamespaceRules("drover-issuer-key"),
    },
    {
      apiVersion: rbac,
      kind: "RoleBinding",
      metadata,
      roleRef: { apiGroup: group, kind: "Role", name: OPERATOR },
      subjects,
    },
  ];
}

function readyStatus(ip: string): Record<string, unknown> {
  return {
    phase: "Running",
    podIP: ip,
    podIPs: [{ ip }],
    conditions: [{ type: "Ready", status: "True" }],
    containerStatuses: [
      {
        name: "sandbox",
        ready: true,
        started: true,
        restartCount: 0,
        image: "x",
        imageID: "x",
        state: { running: {} },
      },
    ],
  };
}

export function aPool(spec: Record<string, unknown> = {}) {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "HarnessPool",
    metadata: { name: "default", namespace: "drover" },
    spec: { replicas: 2, allowedNamespaces: { from: "All" }, ...spec },
  };
}

export function anAgent(name = "coder", namespace = "team-a") {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "Agent",
    metadata: { name, namespace },
    spec: { model: "scripted", tools: [{ type: "agent_toolset_20260401" }] },
  };
}

export function aTemplate(spec: Record<string, unknown> = {}, name = "node", namespace = "team-a") {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "SandboxTemplate",
    metadata: { name, namespace },
    spec: { image: "drover-sandbox:dev", ...spec },
  };
}

export function aSession(name: string, spec: Record<string, unknown> = {}, namespace = "team-a") {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "AgentSession",
    metadata: { name, namespace },
    spec: {
      agentRef: { name: "coder" },
      sandboxTemplateRef: { name: "node" },
      messages: [{ text: "go" }],
      ...spec,
    },
  };
}

export function conditionOf(object: AgentSession | HarnessPool, type: string) {
  return object.status?.conditions?.find((condition) => condition.type === type);
}
