import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { sessionKeys } from "../../src/sessions/keys.ts";
import { eventually } from "../eventually.ts";
import {
  apply,
  createNamespace,
  deleteNamespace,
  get,
  helm,
  kubectl,
  list,
  modelRequests,
  nodeIsThisHost,
  processesOf,
  REDIS_PASSWORD,
  RELEASE,
  SYSTEM,
  sessionIdOf,
  waitCompleted,
} from "./cluster.ts";
import { ensureInstalled, session, template } from "./installation.ts";

const NAMESPACE = "e2e-default";
const STORE = `${RELEASE}-valkey`;
const describeOnThisHost = nodeIsThisHost() ? describe : describe.skip;

/** The other tests look into Redis with a password; whoever installs the chart as it is has none. */
async function usePassword(password: string): Promise<void> {
  // Another test may have changed it; Helm takes no field back from somebody else.
  const { spec } = await get("hrp", SYSTEM, "default");
  const values = `valkey.password=${password},defaultPool.concurrency=${Number(spec["concurrency"])}`;
  const upgrade = ["upgrade", RELEASE, "charts/drover", "-n", SYSTEM, "--reset-then-reuse-values"];
  await helm([...upgrade, "--set", values, "--wait", "--timeout", "180s"]);
  // The server reads its users when it starts.
  await kubectl(["delete", "pod", `${STORE}-0`, "-n", SYSTEM]);
  await kubectl(["rollout", "status", `statefulset/${STORE}`, "-n", SYSTEM, "--timeout=120s"]);
  await kubectl(["wait", "-n", SYSTEM, "hrp/default", "--for=condition=Ready", "--timeout=120s"]);
}

/** Types of a session's events, read as the harness reads them. */
async function typesOf(name: string): Promise<string[]> {
  const { data } = JSON.parse(
    await kubectl(["get", "secret", STORE, "-n", SYSTEM, "-o", "json"]),
  ) as { data: Record<string, string> };
  const password = Buffer.from(data["harness"] ?? "", "base64").toString();
  const { log } = sessionKeys({ tenant: NAMESPACE, id: await sessionIdOf(NAMESPACE, name) });
  const client = ["redis-cli", "--no-auth-warning", "--user", "harness", "-a", password, "--json"];
  const text = await kubectl([
    "exec",
    "-n",
    SYSTEM,
    `${STORE}-0`,
    "--",
    ...client,
    "XRANGE",
    log,
    "-",
    "+",
  ]);
  const entries = JSON.parse(text) as [string, string[]][];
  expect(entries.map(([id]) => id)).toEqual(entries.map((_, i) => `${i + 1}-0`));
  return entries.map(([, fields]) => fields[fields.indexOf("t") + 1] ?? "");
}

describeOnThisHost("the chart's Redis without a password", () => {
  const idle = Array.from({ length: 5 }, (_, i) => `idle-${i}`);
  const running = Array.from({ length: 5 }, (_, i) => `running-${i}`);

  beforeAll(async () => {
    await ensureInstalled();
    await usePassword("");
    await createNamespace(NAMESPACE);
    await apply(NAMESPACE, template);
  }, 600_000);

  afterAll(async () => {
    await deleteNamespace(NAMESPACE);
    await usePassword(REDIS_PASSWORD);
  }, 600_000);

  it("a kill -9 of the server under ten sessions loses none", async () => {
    await apply(NAMESPACE, ...idle.map((name) => session(name, "talk")));
    for (const name of idle) await waitCompleted(NAMESPACE, name, 120);
    const before = await Promise.all(idle.map(typesOf));
    const asked = async () =>
      (await modelRequests()).filter(({ model }) => model === "scripted:slow-stream").length;
    const earlier = await asked();
    await apply(NAMESPACE, ...running.map((name) => session(name, "slow-stream")));
    await eventually(
      "all of them ask the model",
      async () => {
        return (await asked()) >= earlier + running.length;
      },
      { withinMs: 90_000 },
    );

    const [pod] = await list("pods", SYSTEM, "app.kubernetes.io/component=valkey");
    const pids = processesOf(pod?.metadata.uid ?? "", "redis-server");
    expect(pids).toHaveLength(1);
    for (const pid of pids) process.kill(pid, "SIGKILL");

    for (const name of running) await waitCompleted(NAMESPACE, name, 180);
    expect(await Promise.all(idle.map(typesOf))).toEqual(before);
    for (const name of running) {
      const types = await typesOf(name);
      expect(types.filter((type) => type === "tool.result")).toHaveLength(1);
      expect(types.at(-1)).toBe("session.status_idle");
    }
  }, 600_000);
});
