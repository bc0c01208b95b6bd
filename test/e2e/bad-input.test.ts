import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  apply,
  createNamespace,
  deleteNamespace,
  get,
  keysOf,
  kubectl,
  type LogEntry,
  list,
  nodeIsThisHost,
  processesOf,
  readLog,
  redis,
  run,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
  waitFor,
} from "./cluster.ts";
import { controlPlaneImage, ensureInstalled, session, template } from "./installation.ts";

const NAMESPACE = "e2e-bad-input";
// Killing a process as the kernel does needs the node's process table.
const describeOnThisHost = nodeIsThisHost() ? describe : describe.skip;

/** Templates that cannot give a sandbox, and what the model, the log and the Event say of it. */
const hopeless = [
  {
    name: "no-image",
    what: "an image that does not exist",
    spec: { image: "127.0.0.1:9/nothing:1" },
    reason: "ImagePullFailed",
    says: 'the sandbox\'s image "127.0.0.1:9/nothing:1" cannot be pulled',
  },
  {
    name: "bad-setup",
    what: "a set-up script that fails",
    spec: { setupScript: "echo the tarball is not there; exit 3" },
    reason: "SetupFailed",
    says: "ended with exit code 3: the tarball is not there",
  },
  {
    name: "exits",
    what: "an image that is no sandbox and ends at once",
    spec: { image: controlPlaneImage },
    reason: "ExitedEarly",
    says: "its image must be drover-sandbox or built FROM it",
  },
  {
    name: "too-big",
    what: "more memory than any node has",
    spec: { resources: { ...template.spec.resources, memory: "500Gi" }, startDeadlineSeconds: 5 },
    reason: "Unschedulable",
    says: "Insufficient memory",
  },
];

// Those that need nothing of each other run at the same time; each test looks at its own.
beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  const templates = hopeless.map(({ name, spec }) => ({
    ...template,
    metadata: { name },
    spec: { ...template.spec, ...spec },
  }));
  await apply(
    NAMESPACE,
    template,
    ...templates,
    ...hopeless.map(({ name }) => session(name, "tolerant", { sandboxTemplateRef: { name } })),
    session("waits", "", { agent: undefined, agentRef: { name: "later" } }),
    session("misfit", "misfit"),
    session("flood", "flood"),
    session("short-lived", "talk", { ttlSecondsAfterFinished: 1 }),
  );
}, 300_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE);
}, 120_000);

describe("a session whose template asks for", () => {
  it.each(hopeless)(
    "$what: the model gets the reason, an Event says it, the session goes on",
    async (one) => {
      await waitCompleted(NAMESPACE, one.name, 60);

      const log = await logOf(one.name);
      const lost = log.find(({ type }) => type === "sandbox.lost");
      expect(lost?.data["reason"]).toBe(one.reason);
      const [result] = resultsIn(log);
      expect(result).toMatchObject({ is_error: true, outcome: "known" });
      expect(result?.["content"]).toContain(`(${one.reason})`);
      expect(result?.["content"]).toContain(one.says);
      const events = await kubectl(["events", "-n", NAMESPACE, "--for", `ags/${one.name}`]);
      expect(events).toMatch(new RegExp(`Warning\\s+SandboxLost.*${one.reason}`));
      expect(await get("ags", NAMESPACE, one.name)).toMatchObject({ status: { state: "Idle" } });
    },
    100_000,
  );
});

describe("a session", () => {
  it("that refers to what is missing says so, and starts by itself when it is there", async () => {
    await waitFor(NAMESPACE, "waits", "condition=AgentResolved=False");
    const events = await kubectl(["events", "-n", NAMESPACE, "--for", "ags/waits"]);
    expect(events).toMatch(/InvalidReference.*agent "later" which does not exist/);

    const spec = { model: "scripted:talk" };
    const metadata = { name: "later" };
    await apply(NAMESPACE, { apiVersion: "drover.dev/v1alpha1", kind: "Agent", metadata, spec });

    await waitCompleted(NAMESPACE, "waits", 30);
  }, 120_000);

  it("whose model calls tools wrongly tells it how, and goes on", async () => {
    await waitCompleted(NAMESPACE, "misfit");

    const results = resultsIn(await logOf("misfit"));
    const texts = results.map(({ content }) => String(content));
    expect(texts.find((text) => text.includes("`command`"))).toContain("does not fit");
    expect(texts.find((text) => text.includes("`content`"))).toContain("does not fit");
    expect(texts.find((text) => text.includes("no_such_tool"))).toContain("Available: bash");
    expect(results.map(({ is_error: isError }) => isError)).toEqual([true, true, true, false]);
  }, 120_000);

  it("that prints 100 MB keeps head and tail of it, and a log of ordinary size", async () => {
    await waitCompleted(NAMESPACE, "flood");

    const log = await logOf("flood");
    const text = String(resultsIn(log)[0]?.["content"]);
    expect(text).toMatch(/^1\n2\n3\n/);
    expect(text).toContain("\n12700000");
    expect(JSON.stringify(log).length).toBeLessThan(500_000);
    expect((await sandboxPods(NAMESPACE)).filter(isOf("flood"))).toHaveLength(1);
  }, 120_000);

  it("with a time to live is gone when that is over", async () => {
    const wait = ["wait", "-n", NAMESPACE, "ags/short-lived", "--for=delete", "--timeout=60s"];

    expect((await run("kubectl", wait)).stderr).toMatch(/^$|not found/);
  }, 90_000);

  it("that is deleted in the middle of a turn leaves nothing", async () => {
    await apply(NAMESPACE, session("deleted", "slow-command"));
    const id = await sessionIdOf(NAMESPACE, "deleted");
    await entry("deleted", ({ type }) => type === "sandbox.provisioned");

    await kubectl(["delete", "ags", "deleted", "-n", NAMESPACE, "--timeout=60s"]);

    expect(await keysOf(id)).toEqual([]);
    await eventually(
      "its pod is gone",
      async () => {
        return (await sandboxPods(NAMESPACE)).filter(isOf("deleted")).length === 0;
      },
      { withinMs: 60_000 },
    );
  }, 150_000);

  it("suspends, resumes and stops as operatingMode says", async () => {
    await apply(NAMESPACE, session("modes", "slow-command"));
    await entry("modes", ({ type }) => type === "sandbox.provisioned");

    await setMode("modes", "Suspended");
    await waitFor(NAMESPACE, "modes", "jsonpath={.status.state}=Suspended");
    await setMode("modes", "Running");
    await waitCompleted(NAMESPACE, "modes");
    const results = resultsIn(await logOf("modes"));
    expect(results[0]).toMatchObject({ outcome: "known", is_error: false });

    await setMode("modes", "Stopped");
    await waitFor(NAMESPACE, "modes", "jsonpath={.status.state}=Stopped");
    const back = await run("kubectl", patchOfMode("modes", "Running"));
    expect(back.stderr).toContain("`operatingMode` must stay `Stopped`");
  }, 200_000);
});

describe("while the platform is not as it should be", () => {
  it("a session waits for a pool without workers, and goes on when there are some", async () => {
    await scalePool(0);
    const none = async () => (await harnessPods()).length === 0;
    await eventually("no harness pods", none, { withinMs: 90_000 });
    await apply(NAMESPACE, session("patient", "talk"));
    await waitFor(NAMESPACE, "patient", "jsonpath={.status.state}=Pending");
    const { status } = await get("ags", NAMESPACE, "patient");
    expect(JSON.stringify(status)).toContain(
      "is scaled to zero, so no worker takes the session up",
    );

    await scalePool(2);

    await waitCompleted(NAMESPACE, "patient");
  }, 240_000);

  it("a pool says that Redis refuses its password, and recovers", async () => {
    await redis("ACL", "SETUSER", "operator", "resetpass", ">another");
    try {
      await redis("CLIENT", "KILL", "USER", "operator");
      // New operators meet the wrong password when they start, as after an install with it.
      const operators = ["-n", SYSTEM, "-l", "app.kubernetes.io/component=operator"];
      await kubectl(["delete", "pods", ...operators, "--wait=false"]);
      // Those that end see no more than lost connections.
      const refused = await eventually(
        "a pool whose password is refused",
        async () => {
          const { status } = await get("hrp", SYSTEM, "default");
          const conditions = status?.["conditions"] as { type: string; reason: string }[];
          return conditions.find(
            ({ type, reason }) => type === "Ready" && reason === "RedisAuthFailed",
          );
        },
        { withinMs: 90_000 },
      );
      expect(refused).toMatchObject({ status: "False" });
    } finally {
      await redis("ACL", "LOAD");
    }
    await kubectl(["wait", "-n", SYSTEM, "hrp/default", "--for=condition=Ready", "--timeout=120s"]);
    await apply(NAMESPACE, session("afterwards", "talk"));
    await waitCompleted(NAMESPACE, "afterwards");
  }, 300_000);
});

describeOnThisHost("when the kernel kills Redis", () => {
  it("a session goes on, and its call runs once", async () => {
    await apply(NAMESPACE, session("redis", "slow-stream"));
    await entry("redis", ({ type }) => type === "model.request_start");

    const [pod] = await list("pods", SYSTEM, "app.kubernetes.io/component=valkey");
    const pids = processesOf(pod?.metadata.uid ?? "", "redis-server");
    expect(pids).toHaveLength(1);
    for (const pid of pids) process.kill(pid, "SIGKILL");

    await waitCompleted(NAMESPACE, "redis", 120);
    const results = resultsIn(await logOf("redis"));
    expect(results.map(({ content }) => String(content).trim())).toEqual(["once"]);
  }, 200_000);
});

async function logOf(name: string): Promise<LogEntry[]> {
  return await readLog(await sessionIdOf(NAMESPACE, name));
}

function resultsIn(log: LogEntry[]): Record<string, unknown>[] {
  return log.filter(({ type }) => type === "tool.result").map(({ data }) => data);
}

async function entry(name: string, fits: (entry: LogEntry) => boolean): Promise<void> {
  await eventually(`an entry in the log of ${name}`, async () => (await logOf(name)).find(fits), {
    withinMs: 60_000,
  });
}

function isOf(name: string) {
  return ({ metadata }: { metadata: { name: string } }) => metadata.name.startsWith(`${name}-`);
}

function patchOfMode(name: string, operatingMode: string): string[] {
  const patch = JSON.stringify({ spec: { operatingMode } });
  return ["patch", "ags", name, "-n", NAMESPACE, "--type=merge", "-p", patch];
}

async function setMode(name: string, operatingMode: string): Promise<void> {
  await kubectl(patchOfMode(name, operatingMode));
}

async function scalePool(replicas: number): Promise<void> {
  await kubectl(["scale", "hrp", "default", "-n", SYSTEM, `--replicas=${replicas}`]);
}

async function harnessPods() {
  return await list("pods", SYSTEM, "app.kubernetes.io/component=harness");
}
