import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import {
  apply,
  createNamespace,
  deleteNamespace,
  get,
  kubectl,
  list,
  modelRequests,
  RELEASE,
  readLog,
  run,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
  waitFor,
} from "./cluster.ts";
import {
  ensureInstalled,
  MODEL_KEY,
  MODEL_KEY_SECRET,
  NOTES,
  session,
  template,
} from "./installation.ts";
import { everywhere, findIn, readableIn } from "./marker-search.ts";
import { startNotesServer } from "./notes.ts";

const NAMESPACE = NOTES.namespace;
const TOKEN = "e2e-marker-of-the-notes-server";
const URL = `http://${NOTES.host}:${NOTES.port}/mcp`;

beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  await Promise.all([demandModelKey(), startNotesServer(NAMESPACE, [TOKEN])]);
  await apply(NAMESPACE, template, vault, noted);
}, 300_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE);
}, 120_000);

describe("a session with an MCP server that wants a credential", () => {
  let grant = "";

  it("does not start while the credential may not be read, and says what to run", async () => {
    await waitFor(NAMESPACE, "noted", "condition=VaultsResolved=False");

    const { status } = await get("ags", NAMESPACE, "noted");
    const conditions = status?.["conditions"] as {
      type: string;
      reason: string;
      message: string;
    }[];
    const why = conditions.find(({ type }) => type === "VaultsResolved");
    expect(why).toMatchObject({ reason: "AccessDenied" });
    expect(status).toMatchObject({ state: "Pending" });
    expect(status?.["sessionId"]).toBeUndefined();
    const events = await kubectl(["events", "-n", NAMESPACE, "--for", "ags/noted"]);
    expect(events).toMatch(/Warning\s+AccessDenied/);
    grant = /grant what is missing with: (.+)$/.exec(why?.message ?? "")?.[1] ?? "";
    expect(grant).toContain("kubectl -n e2e-credentials create role");
  }, 60_000);

  it("starts by itself once that was run, and its server sees the credential", async () => {
    const granted = await run("bash", ["-c", grant]);
    expect({ grant, ...granted }).toMatchObject({ code: 0 });

    await waitCompleted(NAMESPACE, "noted");

    const log = await readLog(await sessionIdOf(NAMESPACE, "noted"));
    const results = log.filter(({ type }) => type === "tool.result").map(({ data }) => data);
    expect(results[0]).toMatchObject({
      is_error: false,
      content: 'noted "remember the milk" for Bearer [redacted:notes/notes]',
    });
    expect(results[1]).toMatchObject({ is_error: false });
  }, 150_000);

  it("the model's endpoint got its key, which it demands", async () => {
    const mine = (await modelRequests()).filter(({ model }) => model === "scripted:mcp");

    expect(mine.length).toBeGreaterThan(0);
    for (const { headers } of mine) expect(headers).toMatchObject({ "x-api-key": "[present]" });
  });

  it("neither secret is in any object, event, log, request or in Redis", async () => {
    const places = await everywhere([SYSTEM, NAMESPACE]);

    // The search finds what is there.
    expect(places["redis"]).toContain("remember the milk");
    expect(places["requests"]).toContain("remember the milk");
    expect(places["logs"]).toContain("session claimed");
    expect(places["objects"]).toContain(MODEL_KEY_SECRET);
    expect(findIn(places, [TOKEN, MODEL_KEY])).toEqual([]);
  }, 60_000);

  it("neither secret can be read in the sandbox or the harness container, and the proxy has the key", async () => {
    const markers = [TOKEN, MODEL_KEY];
    const [sandbox] = await sandboxPods(NAMESPACE);
    expect(await readableIn([sandbox?.metadata.name ?? "", "-n", NAMESPACE], markers)).toEqual([]);
    for (const { metadata } of await list("pods", SYSTEM, "app.kubernetes.io/component=harness")) {
      const pod = [metadata.name, "-n", SYSTEM];
      expect(await readableIn([...pod, "-c", "harness"], markers)).toEqual([]);
      expect(await readableIn([...pod, "-c", "proxy"], markers)).toEqual([
        expect.stringMatching(/^\/run\/secrets\/drover\/model-key\/.*api-key$/),
      ]);
    }
  }, 120_000);
});

const vault = {
  apiVersion: "drover.dev/v1alpha1",
  kind: "CredentialVault",
  metadata: { name: "notes" },
  spec: {
    entries: [{ name: "notes", mcpServerUrl: URL, secretRef: { name: "notes", key: "token" } }],
  },
};

const noted = session("noted", "mcp", {
  agent: {
    model: "scripted:mcp",
    mcpServers: [{ name: "notes", url: URL }],
    tools: [
      { type: "agent_toolset_20260401" },
      {
        type: "mcp_toolset",
        mcpServerName: "notes",
        defaultConfig: { permissionPolicy: "always_allow" },
      },
    ],
  },
  vaultRefs: [{ name: "notes" }],
});

/** From now on the scripted model refuses requests that lack the key. */
async function demandModelKey(): Promise<void> {
  const secretKeyRef = { name: MODEL_KEY_SECRET, key: "api-key" };
  const env = [{ name: "DROVER_SCRIPTED_MODEL_API_KEY", valueFrom: { secretKeyRef } }];
  const spec = { template: { spec: { containers: [{ name: "scripted-model", env }] } } };
  const deployment = `deployment/${RELEASE}-scripted-model`;
  await kubectl(["patch", deployment, "-n", SYSTEM, "-p", JSON.stringify({ spec })]);
  await kubectl(["rollout", "status", deployment, "-n", SYSTEM, "--timeout=60s"]);
}
