import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";

/** controller-runtime's and client-go's names and labels, word for word, so that dashboards work. */
export interface KubeMetrics {
  readonly controller: ControllerMetrics;
  readonly workQueue: WorkQueueMetrics;
  readonly restClient: RestClientMetrics;
  /** Labels: `name`. */
  readonly leaderElectionMasterStatus: Gauge<"name">;
}

export type ReconcileResult = "success" | "error" | "requeue" | "requeue_after";

interface ControllerMetrics {
  readonly reconcileTotal: Counter<"controller" | "result">;
  readonly reconcileErrors: Counter<"controller">;
  readonly terminalErrors: Counter<"controller">;
  readonly panics: Counter<"controller">;
  readonly timeouts: Counter<"controller">;
  readonly reconcileSeconds: Histogram<"controller">;
  readonly maxConcurrent: Gauge<"controller">;
  readonly activeWorkers: Gauge<"controller">;
}

export interface WorkQueueMetrics {
  readonly depth: Gauge<"name" | "controller">;
  readonly adds: Counter<"name" | "controller">;
  readonly queueSeconds: Histogram<"name" | "controller">;
  readonly workSeconds: Histogram<"name" | "controller">;
  readonly retries: Counter<"name" | "controller">;
  /** Asked at each scrape for the work in progress; the answer stops it. */
  observe(source: UnfinishedWork): () => void;
}

interface UnfinishedWork {
  readonly name: string;
  /** Ages of the keys being worked on, in seconds. */
  unfinishedSeconds(): number[];
}

export interface RestClientMetrics {
  readonly requests: Counter<"code" | "method" | "host">;
  readonly requestSeconds: Histogram<"verb" | "host">;
  readonly retries: Counter<"code" | "verb" | "host">;
}

const RECONCILE_BUCKETS = [
  0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1,
  1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60,
];
/** 1 µs to 100 s. */
const QUEUE_BUCKETS = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 100];
const REQUEST_BUCKETS = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60];

export function createKubeMetrics(registry: Registry): KubeMetrics {
  const registers = [registry];
  return {
    controller: createControllerMetrics(registers),
    workQueue: createWorkQueueMetrics(registers),
    restClient: createRestClientMetrics(registers),
    leaderElectionMasterStatus: new Gauge({
      name: "leader_election_master_status",
      help: "1 while this process leads under the lease `name`, else 0.",
      labelNames: ["name"],
      registers,
    }),
  };
}

function createControllerMetrics(registers: Registry[]): ControllerMetrics {
  const labelNames = ["controller"] as const;
  const counter = (name: string, help: string) =>
    new Counter({ name: `controller_runtime_${name}`, help, labelNames, registers });
  const gauge = (name: string, help: string) =>
    new Gauge({ name: `controller_runtime_${name}`, help, labelNames, registers });
  return {
    reconcileTotal: new Counter({
      name: "controller_runtime_reconcile_total",
      help: "Passes by controller and result (success, error, requeue, requeue_after).",
      labelNames: ["controller", "result"] as const,
      registers,
    }),
    reconcileErrors: counter("reconcile_errors_total", "Passes that failed, by controller."),
    terminalErrors: counter(
      "terminal_reconcile_errors_total",
      "Passes that failed in a way that trying again cannot help, by controller.",
    ),
    panics: counter("reconcile_panics_total", "Passes ended by a bug, by controller."),
    timeouts: counter("reconcile_timeouts_total", "Passes that took too long, by controller."),
    reconcileSeconds: new Histogram({
      name: "controller_runtime_reconcile_time_seconds",
      help: "Duration of a pass, by controller.",
      labelNames,
      buckets: RECONCILE_BUCKETS,
      registers,
    }),
    maxConcurrent: gauge("max_concurrent_reconciles", "Workers, by controller."),
    activeWorkers: gauge("active_workers", "Workers in a pass now, by controller."),
  };
}

function createWorkQueueMetrics(registers: Registry[]): WorkQueueMetrics {
  const labelNames = ["name", "controller"] as const;
  const sources = new Set<UnfinishedWork>();
  const seconds = (name: string, help: string) =>
    new Histogram({ name, help, labelNames, buckets: QUEUE_BUCKETS, registers });
  const fromSources = (name: string, help: string, measure: (ages: number[]) => number) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        for (const source of sources) {
          const labels = { name: source.name, controller: source.name };
          this.set(labels, measure(source.unfinishedSeconds()));
        }
      },
    });
  fromSources(
    "workqueue_unfinished_work_seconds",
    "Sum of the ages of keys being worked on, by queue.",
    (ages) => ages.reduce((sum, age) => sum + age, 0),
  );
  fromSources(
    "workqueue_longest_running_processor_seconds",
    "Age of the oldest key being worked on, by queue.",
    (ages) => Math.max(0, ...ages),
  );
  return {
    depth: new Gauge({
      name: "workqueue_depth",
      help: "Keys that wait for a worker, by queue.",
      labelNames,
      registers,
    }),
    adds: new Counter({
      name: "workqueue_adds_total",
      help: "Keys added, by queue.",
      labelNames,
      registers,
    }),
    queueSeconds: seconds("workqueue_queue_duration_seconds", "Time a key waits, by queue."),
    workSeconds: seconds("workqueue_work_duration_seconds", "Time a key is worked on, by queue."),
    retries: new Counter({
      name: "workqueue_retries_total",
      help: "Keys added again after a failure, by queue.",
      labelNames,
      registers,
    }),
    observe(source) {
      sources.add(source);
      return () => sources.delete(source);
    },
  };
}

function createRestClientMetrics(registers: Registry[]): RestClientMetrics {
  return {
    requests: new Counter({
      name: "rest_client_requests_total",
      help: "Requests to the Kubernetes API by status code (`<error>` without one), method, host.",
      labelNames: ["code", "method", "host"] as const,
      registers,
    }),
    requestSeconds: new Histogram({
      name: "rest_client_request_duration_seconds",
      help: "Duration of requests to the Kubernetes API by verb and host; a watch counts to its start.",
      labelNames: ["verb", "host"] as const,
      buckets: REQUEST_BUCKETS,
      registers,
    }),
    retries: new Counter({
      name: "rest_client_request_retries_total",
      help: "Requests to the Kubernetes API sent again, by status code, verb, host.",
      labelNames: ["code", "verb", "host"] as const,
      registers,
    }),
  };
}
