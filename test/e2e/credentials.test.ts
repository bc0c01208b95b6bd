import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import {
  apply,
  createNamespace,
  deleteNamespace,
  dumpRedis,
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
  controlPlaneImage,
  ensureInstalled,
  MODEL_KEY,
  MODEL_KEY_SECRET,
  NOTES,
  session,
  template,
} from "./installation.ts";

const NAMESPACE = NOTES.namespace;
const TOKEN = "e2e-marker-of-the-notes-server";
const URL = `http://${NOTES.host}:${NOTES.port}/mcp`;

beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  await Promise.all([demandModelKey(), startNotesServer()]);
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
    const kinds =
      "pods,deployments,replicasets,statefulsets,configmaps,events,agentsessions,credentialvaults,harnesspools";
    const places: Record<string, string> = {
      objects: await kubectl(["get", kinds, "-A", "-o", "json"]),
      redis: await dumpRedis(),
      requests: (await modelRequests()).map(({ text }) => text).join("\n"),
      logs: await allLogs(),
    };

    // The search finds what is there.
    expect(places["redis"]).toContain("remember the milk");
    expect(places["requests"]).toContain("remember the milk");
    expect(places["logs"]).toContain("session claimed");
    expect(places["objects"]).toContain(MODEL_KEY_SECRET);
    for (const [place, text] of Object.entries(places)) {
      for (const form of formsOf(TOKEN, MODEL_KEY)) {
        expect({ place, form, found: text.includes(form) }).toEqual({ place, form, found: false });
      }
    }
  }, 60_000);

  it("neither secret can be read in the sandbox or the harness container, and the proxy has the key", async () => {
    const [sandbox] = await sandboxPods(NAMESPACE);
    expect(await visibleIn([sandbox?.metadata.name ?? "", "-n", NAMESPACE])).toEqual([]);
    for (const { metadata } of await list("pods", SYSTEM, "app.kubernetes.io/component=harness")) {
      const pod = [metadata.name, "-n", SYSTEM];
      expect(await visibleIn([...pod, "-c", "harness"])).toEqual([]);
      expect(await visibleIn([...pod, "-c", "proxy"])).toEqual([
        expect.stringMatching(/^\/run\/secrets\/drover\/model\/.*api-key$/),
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

async function startNotesServer(): Promise<void> {
  const labels = { app: "notes" };
  const container = {
    name: "notes",
    image: controlPlaneImage,
    imagePullPolicy: "IfNotPresent",
    command: ["node", "/app/notes-server.ts"],
    env: [{ name: "NOTES_TOKEN", valueFrom: { secretKeyRef: { name: "notes", key: "token" } } }],
    readinessProbe: { httpGet: { path: "/healthz", port: NOTES.port }, periodSeconds: 1 },
    // Beside /app/node_modules, where it finds what it imports.
    volumeMounts: [
      { name: "script", mountPath: "/app/notes-server.ts", subPath: "notes-server.ts" },
    ],
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
  };
  const pod = {
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    containers: [container],
    volumes: [{ name: "script", configMap: { name: "notes" } }],
  };
  const metadata = { name: "notes" };
  const script = readFileSync("test/e2e/notes-server.ts", "utf8");
  await apply(
    NAMESPACE,
    { apiVersion: "v1", kind: "Secret", metadata, stringData: { token: TOKEN } },
    { apiVersion: "v1", kind: "ConfigMap", metadata, data: { "notes-server.ts": script } },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: { selector: labels, ports: [{ port: NOTES.port }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: pod } },
    },
  );
  await kubectl(["rollout", "status", "deployment/notes", "-n", NAMESPACE, "--timeout=90s"]);
}

/** As they are, and as a Secret or a Basic header would hold them. */
function formsOf(...secrets: string[]): string[] {
  return secrets.flatMap((secret) => [secret, Buffer.from(secret).toString("base64")]);
}

async function allLogs(): Promise<string> {
  const texts: string[] = [];
  for (const namespace of [SYSTEM, NAMESPACE]) {
    for (const { metadata } of await list("pods", namespace)) {
      texts.push(await kubectl(["logs", metadata.name, "-n", namespace, "--all-containers"]));
    }
  }
  return texts.join("\n");
}

/** Files, environments of processes among them, in which a container can read one of the secrets. */
async function visibleIn(container: string[]): Promise<string[]> {
  const node = await kubectl(["exec", ...container, "--", "node", "-e", SEARCH, ...halves]);
  return JSON.parse(node) as string[];
}

/** In halves, so that the search does not find its own command line. */
const halves = [TOKEN, MODEL_KEY].flatMap((secret) => [secret.slice(0, 10), secret.slice(10)]);
const SEARCH = `
  const { readdirSync, readFileSync, lstatSync } = require("node:fs");
  const [a, b, c, d] = process.argv.slice(1);
  const found = [];
  const look = (path) => {
    try {
      const stat = lstatSync(path);
      if (stat.isDirectory()) for (const name of readdirSync(path)) look(path + "/" + name);
      else if (stat.isFile() && stat.size < 1e7) {
        const text = readFileSync(path, "latin1");
        if (text.includes(a + b) || text.includes(c + d)) found.push(path);
      }
    } catch {}
  };
  for (const root of ["/run", "/tmp", "/etc", "/home", "/root", "/workspace", "/var/lib/drover"]) look(root);
  for (const pid of readdirSync("/proc").filter((name) => /^\\d+$/.test(name))) {
    look("/proc/" + pid + "/environ");
    look("/proc/" + pid + "/cmdline");
  }
  process.stdout.write(JSON.stringify(found));
`;
