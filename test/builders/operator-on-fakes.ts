import type { RecordedEvent } from "../../src/kube/event-recorder.ts";
import { Manager } from "../../src/kube/manager.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { configMaps } from "../../src/kube/resources.ts";
import { LOGS_TO_ERASE } from "../../src/operator/agent-session/erasures.ts";
import { createCaches } from "../../src/operator/caches.ts";
import { createControllers } from "../../src/operator/controllers.ts";
import { createOperatorMetrics } from "../../src/operator/metrics.ts";
import type { EntryReport } from "../../src/protocol/session-ports.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { createMemorySessionStore } from "../../src/sessions/memory/memory-session-store.ts";
import type { OperatorLog } from "../../src/sessions/session-log.ts";
import { FakeClock } from "../fakes/fake-clock.ts";
import { FakeKube } from "../fakes/fake-kube.ts";
import { createSeededRng } from "../fakes/seeded-rng.ts";
import { anInstall } from "./install.ts";
import { CREATED_MS } from "./kinds.ts";

/** What stays when an operator process ends. */
export function aWorld() {
  const clock = new FakeClock(CREATED_MS);
  const rng = createSeededRng();
  const kube = new FakeKube({ clock });
  const empty = { name: LOGS_TO_ERASE, namespace: "drover" };
  kube.seed(configMaps, { apiVersion: "v1", kind: "ConfigMap", metadata: empty });
  return { clock, rng, kube, store: createMemorySessionStore({ clock, rng }) };
}

/** The whole operator on a fake API server, a memory store and a clock that the test moves. */
export function anOperator(
  change: (log: OperatorLog) => OperatorLog = (log) => log,
  install = anInstall(),
  world = aWorld(),
) {
  const { clock, rng, kube, store } = world;
  const events: RecordedEvent[] = [];
  /** `<namespace>/<vault>` → entry → what a proxy said. */
  const reports = new Map<string, Map<string, EntryReport>>();
  /** Why the store cannot be used, as the operator's own check of it would say. */
  const outage: { problem: string | undefined } = { problem: undefined };
  const registry = new Registry();
  const common = { clock, rng, logger: silentLogger, client: kube };
  const caches = createCaches(common, "drover");
  const metrics = createOperatorMetrics(registry);
  const { controllers, leaderOnly } = createControllers({
    ...common,
    caches,
    log: change(store.operator),
    storeProblem: () => outage.problem,
    bindings: store.ports,
    credentialReports: {
      readCredentialReports: async (namespace, vault) =>
        reports.get(`${namespace}/${vault}`) ?? new Map(),
    },
    events: { record: (_type, _object, event) => events.push(event) },
    metrics,
    install,
    commit: { mode: "fsync" },
    publicKeys: () => ({ keys: [] }),
    userNamespaces: false,
  });
  const manager = new Manager({
    ...common,
    metrics: createKubeMetrics(registry),
    informers: Object.values(caches),
    controllers,
    leaderOnly,
  });
  return { clock, rng, kube, store, outage, events, reports, registry, manager, caches };
}
