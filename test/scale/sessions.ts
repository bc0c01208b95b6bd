/**
 * Applies many sessions at once on the test bed and prints what they cost: writes to the API server
 * and etcd per session, sandbox pods, and the time from apply to the first model request.
 *
 *   npm run scale -- 200
 *
 * The cluster must be up (`make cluster-up`); the chart is installed when it is not.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import {
  apply,
  createNamespace,
  deleteNamespace,
  kubectl,
  list,
  RELEASE,
  run,
  SYSTEM,
  sandboxPods,
} from "../e2e/cluster.ts";
import { ensureInstalled, session, template } from "../e2e/installation.ts";
import { eventually } from "../eventually.ts";

const NAMESPACE = "scale";
const PARALLEL = 20;
const WRITE_VERBS = /verb="(POST|PUT|PATCH|APPLY|DELETE)"/;

interface Counters {
  /** API writes by `resource[/subresource]`. */
  writes: Map<string, number>;
  etcdPuts: number | undefined;
}

async function counters(): Promise<Counters> {
  const writes = new Map<string, number>();
  for (const line of (await kubectl(["get", "--raw", "/metrics"])).split("\n")) {
    if (!line.startsWith("apiserver_request_total{") || !WRITE_VERBS.test(line)) continue;
    const resource = /[{,]resource="([^"]*)"/.exec(line)?.[1] ?? "";
    const sub = /subresource="([^"]*)"/.exec(line)?.[1] ?? "";
    const key = sub === "" ? resource : `${resource}/${sub}`;
    writes.set(key, (writes.get(key) ?? 0) + Number(line.slice(line.lastIndexOf(" "))));
  }
  const etcd = ["netns", "exec", "drover", "curl", "-s", "http://127.0.0.1:2379/metrics"];
  const text = (await run("ip", etcd)).stdout;
  const puts = /^etcd_mvcc_put_total (\S+)$/m.exec(text)?.[1];
  return { writes, etcdPuts: puts === undefined ? undefined : Number(puts) };
}

/** An unauthenticated local door to the API server, for as long as `work` runs. */
async function withProxy<T>(work: (url: string) => Promise<T>): Promise<T> {
  const env = { ...process.env };
  const where = await run("sh", ["-c", "command -v kubectl; echo $KUBECONFIG"]);
  const [program = "kubectl", kubeconfig = ""] = where.stdout.trim().split("\n");
  const child = spawn(program, ["proxy", "--port=0"], {
    env: { ...env, KUBECONFIG: kubeconfig },
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    return await work(`http://${line.slice(line.lastIndexOf("127.0.0.1"))}`);
  } finally {
    child.kill();
  }
}

/** Creates the sessions, PARALLEL at a time; gives the epoch ms at which each was sent. */
async function createAll(url: string, names: string[]): Promise<Map<string, number>> {
  const sent = new Map<string, number>();
  const path = `${url}/apis/drover.dev/v1alpha1/namespaces/${NAMESPACE}/agentsessions`;
  const queue = [...names];
  const worker = async () => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      const object = session(name, "quick", { messages: [{ text: `I am ${name}.` }] });
      sent.set(name, Date.now());
      const response = await fetch(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(object),
      });
      if (!response.ok) throw new Error(`create ${name}: ${await response.text()}`);
      await response.arrayBuffer();
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
  return sent;
}

interface SeenRequest {
  at: number;
  lastUserText?: string;
  [field: string]: unknown;
}

async function modelRequests(url: string): Promise<SeenRequest[]> {
  const service = `${url}/api/v1/namespaces/${SYSTEM}/services/${RELEASE}-scripted-model:8080/proxy`;
  const response = await fetch(`${service}/requests`);
  return ((await response.json()) as { requests: SeenRequest[] }).requests;
}

function percentile(sorted: number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

async function main(count: number): Promise<void> {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  // A sandbox is a Node process: on one small node 200 of them at a time would be its memory, and
  // starting them takes minutes.
  const spec = { ...template.spec, idleTimeoutSeconds: 10, startDeadlineSeconds: 900 };
  await apply(NAMESPACE, { ...template, spec });
  const roomForAll = JSON.stringify({ spec: { concurrency: Math.max(50, count) } });
  await kubectl(["patch", "hrp", "default", "-n", SYSTEM, "--type=merge", "-p", roomForAll]);
  await kubectl(["wait", "-n", SYSTEM, "hrp/default", "--for=condition=Ready", "--timeout=120s"]);
  const names = Array.from({ length: count }, (_, i) => `s-${i}`);
  const before = await counters();
  await withProxy(async (url) => {
    const started = Date.now();
    const sent = await createAll(url, names);
    console.log(`${count} sessions created in ${Date.now() - started} ms, ${PARALLEL} at a time`);
    await eventually(
      "all sessions completed",
      async () => {
        const items = await list("agentsessions", NAMESPACE);
        const done = items.filter((item) => {
          const conditions = item.status?.["conditions"] as { type: string; status: string }[];
          return conditions?.some(({ type, status }) => type === "Completed" && status === "True");
        });
        return done.length === count;
      },
      { withinMs: 900_000 },
    );
    console.log(`all completed after ${((Date.now() - started) / 1000).toFixed(1)} s`);
    const after = await counters();
    const first = new Map<string, number>();
    for (const request of await modelRequests(url)) {
      const name = /I am (s-\d+)\./.exec(JSON.stringify(request))?.[1];
      if (name !== undefined && !first.has(name)) first.set(name, request.at);
    }
    const waits = names
      .map((name) => (first.get(name) ?? Number.NaN) - (sent.get(name) ?? 0))
      .filter((wait) => !Number.isNaN(wait))
      .toSorted((a, b) => a - b);
    console.log(
      `apply to first model request (${waits.length} seen): p50 ${percentile(waits, 0.5)} ms, p99 ${percentile(waits, 0.99)} ms`,
    );
    const requested = await run("kubectl", ["events", "-n", NAMESPACE, "--types=Normal"]);
    const made = requested.stdout.split("\n").filter((line) => line.includes("SandboxProvisioned"));
    console.log(
      `sandboxes made: ${made.length}, still there: ${(await sandboxPods(NAMESPACE)).length}`,
    );
    report(before, after, count);
  });
  await kubectl(["delete", "ags", "--all", "-n", NAMESPACE, "--timeout=300s"]);
  await deleteNamespace(NAMESPACE);
}

function report(before: Counters, after: Counters, count: number): void {
  console.log("API writes per session, the user's create and the kubelet's included:");
  for (const [key, total] of [...after.writes].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const delta = total - (before.writes.get(key) ?? 0);
    if (delta >= count / 10) console.log(`  ${key.padEnd(40)} ${(delta / count).toFixed(2)}`);
  }
  if (before.etcdPuts !== undefined && after.etcdPuts !== undefined) {
    console.log(
      `etcd puts per session: ${((after.etcdPuts - before.etcdPuts) / count).toFixed(2)}`,
    );
  }
}

await main(Number(process.argv[2] ?? "200"));
