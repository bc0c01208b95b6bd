import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  apply,
  createNamespace,
  deleteNamespace,
  get,
  kubectl,
  type LogEntry,
  list,
  modelRequests,
  nodeIsThisHost,
  processesOf,
  readLog,
  run,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  stateDirectory,
  waitCompleted,
} from "./cluster.ts";
import { ensureInstalled, session, template } from "./installation.ts";

const NAMESPACE = "e2e-faults";
// Killing a process as the kernel does needs the node's process table.
const describeOnThisHost = nodeIsThisHost() ? describe : describe.skip;

beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  await apply(NAMESPACE, template);
}, 300_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE);
}, 120_000);

/** Waits until the log of the session holds an entry that fits. */
async function logged(
  name: string,
  what: string,
  fits: (entry: LogEntry) => boolean,
): Promise<LogEntry> {
  const id = await sessionIdOf(NAMESPACE, name);
  return await eventually(
    `${what} in the log of ${name}`,
    async () => (await readLog(id)).find(fits),
    { withinMs: 60_000 },
  );
}

/** Invariants of every log, whatever happened (docs/design/session-log.md#invariants). */
async function expectSoundLog(name: string): Promise<LogEntry[]> {
  const log = await readLog(await sessionIdOf(NAMESPACE, name));
  expect(log.map((entry) => entry.seq)).toEqual(log.map((_, i) => i + 1));
  const ids = (type: string) =>
    log.filter((entry) => entry.type === type).map((entry) => entry.data["id"]);
  const intents = ids("tool.intent");
  expect(new Set(intents).size).toBe(intents.length);
  expect(new Set(ids("tool.result"))).toEqual(new Set(intents));
  expect(ids("tool.result")).toHaveLength(intents.length);
  return log;
}

async function effects(): Promise<string> {
  const pods = await sandboxPods(NAMESPACE);
  const living = pods.filter((pod) => pod.metadata.deletionTimestamp === undefined);
  const name = living.at(-1)?.metadata.name ?? "";
  return await kubectl(["exec", "-n", NAMESPACE, name, "--", "cat", "/workspace/effects.txt"]);
}

/** The pod of the harness that holds the session now: its `own` is the pod's UID. */
async function holders(): Promise<{ name: string; uid: string }[]> {
  const pods = await list("pods", SYSTEM, "app.kubernetes.io/component=harness");
  return pods.map(({ metadata }) => ({ name: metadata.name, uid: metadata.uid }));
}

/** A test that fails leaves nothing behind that could fail the next one. */
afterEach(async () => {
  await kubectl(["delete", "ags", "--all", "-n", NAMESPACE, "--timeout=120s"]);
  const gone = async () => (await sandboxPods(NAMESPACE)).length === 0;
  await eventually("no sandbox pods", gone, { withinMs: 90_000 });
}, 240_000);

describe("a session survives", () => {
  it("deletion of the sandbox pod: the next call gets a new generation", async () => {
    await apply(NAMESPACE, session("two", "two-calls"));
    await logged("two", "the first result", (entry) => entry.type === "tool.result");
    const pod = (await sandboxPods(NAMESPACE))[0];

    await kubectl([
      "delete",
      "pod",
      pod?.metadata.name ?? "",
      "-n",
      NAMESPACE,
      "--grace-period=0",
      "--force",
    ]);
    await waitCompleted(NAMESPACE, "two", 150);

    const log = await expectSoundLog("two");
    expect(log.some((entry) => entry.type === "sandbox.lost")).toBe(true);
    const generations = log
      .filter((entry) => entry.type === "sandbox.provisioned")
      .map((entry) => entry.data["generation"]);
    expect(generations).toEqual([1, 2]);
  }, 300_000);

  it("deletion of the operator leader", async () => {
    await apply(NAMESPACE, session("leader", "slow-stream"));
    await logged("leader", "a request", (entry) => entry.type === "model.request_start");
    const leases = await list("leases.coordination.k8s.io", SYSTEM);
    const holder = leases
      .map((lease) => lease.spec["holderIdentity"])
      .find((identity) => typeof identity === "string" && identity !== "");
    const operators = await list("pods", SYSTEM, "app.kubernetes.io/component=operator");
    const leader = operators.find((pod) => String(holder).includes(pod.metadata.name));
    expect(leader).toBeDefined();

    await kubectl([
      "delete",
      "pod",
      leader?.metadata.name ?? "",
      "-n",
      SYSTEM,
      "--grace-period=0",
      "--force",
    ]);
    await waitCompleted(NAMESPACE, "leader", 150);

    await expectSoundLog("leader");
    expect(await effects()).toBe("once\n");
  }, 300_000);

  it("a rolling update of the harness pool with 20 sessions in flight: none is lost, no call runs twice", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `rolling-${i}`);
    await apply(NAMESPACE, ...names.map((name) => session(name, "steady")));
    await eventually(
      "all of them ask the model",
      async () => {
        const asked = (await modelRequests()).filter(({ model }) => model === "scripted:steady");
        return asked.length >= names.length;
      },
      { withinMs: 60_000 },
    );

    const [pool] = await list("deployments", SYSTEM, "app.kubernetes.io/component=harness");
    const deployment = pool?.metadata.name ?? "";
    const before = Number(pool?.status?.["observedGeneration"]);
    const { spec } = await get("hrp", SYSTEM, "default");
    const patch = JSON.stringify({ spec: { concurrency: Number(spec["concurrency"]) - 1 } });
    await kubectl(["patch", "hrp", "default", "-n", SYSTEM, "--type=merge", "-p", patch]);
    await eventually(
      "the update to begin",
      async () => {
        const found = await get("deployment", SYSTEM, deployment);
        return Number(found.status?.["observedGeneration"]) > before;
      },
      { withinMs: 30_000 },
    );
    await kubectl([
      "rollout",
      "status",
      `deployment/${deployment}`,
      "-n",
      SYSTEM,
      "--timeout=180s",
    ]);
    for (const name of names) await waitCompleted(NAMESPACE, name, 180);

    for (const name of names) {
      const log = await expectSoundLog(name);
      const results = log.filter((entry) => entry.type === "tool.result");
      expect(results.map((entry) => entry.data["outcome"])).toEqual(["known", "known", "known"]);
      expect(String(results.at(-1)?.data["content"]).trim()).toBe("3");
    }
  }, 600_000);
});

describeOnThisHost("a session survives a kill by the kernel:", () => {
  it("kill -9 of the harness container mid-stream: the call runs once", async () => {
    await apply(NAMESPACE, session("stream", "slow-stream"));
    await logged("stream", "a request", (entry) => entry.type === "model.request_start");

    // Whichever worker holds it: all of them die.
    for (const pod of await holders()) {
      for (const pid of processesOf(pod.uid, "harness")) process.kill(pid, "SIGKILL");
    }
    await waitCompleted(NAMESPACE, "stream", 120);

    const log = await expectSoundLog("stream");
    expect(log.some((entry) => entry.type === "model.request_abandoned")).toBe(true);
    expect(await effects()).toBe("once\n");
  }, 240_000);

  it("kill -9 of the sandbox container mid-command: the model is told that the outcome is unknown", async () => {
    await apply(NAMESPACE, session("command", "slow-command"));
    await logged("command", "a ready sandbox", (entry) => entry.type === "sandbox.provisioned");
    const pod = (await sandboxPods(NAMESPACE))[0];
    await eventually("the command has started", async () => (await effects()).includes("started"), {
      withinMs: 30_000,
    });

    const pids = processesOf(pod?.metadata.uid ?? "", "");
    expect(pids.length).toBeGreaterThan(0);
    for (const pid of processesOf(pod?.metadata.uid ?? "", "sandbox")) {
      process.kill(pid, "SIGKILL");
    }
    await waitCompleted(NAMESPACE, "command", 150);

    const log = await expectSoundLog("command");
    const unknown = log.filter((entry) => entry.data["outcome"] === "unknown");
    expect(unknown).toHaveLength(1);
    expect(unknown[0]?.data["is_error"]).toBe(true);
  }, 300_000);

  it("a restart of the API server", async () => {
    await apply(NAMESPACE, session("apiserver", "slow-stream"));
    await logged("apiserver", "a request", (entry) => entry.type === "model.request_start");

    await restartApiServer();
    await waitCompleted(NAMESPACE, "apiserver", 150);

    await expectSoundLog("apiserver");
    expect(await effects()).toBe("once\n");
  }, 300_000);
});

/** kill -9 of the API server of our own node, and the same command line again. */
async function restartApiServer(): Promise<void> {
  const [pid = "0"] = readFileSync(join(stateDirectory, "pids", "kube-apiserver"), "utf8").split(
    " ",
  );
  process.kill(Number(pid), "SIGKILL");
  const result = await run("bash", ["test/cluster/restart.sh", "kube-apiserver"]);
  if (result.code !== 0) throw new Error(`restart.sh: ${result.stderr}`);
  await eventually(
    "the API server answers again",
    async () => (await kubectl(["get", "--raw", "/readyz"])) === "ok",
    { withinMs: 60_000 },
  );
}
