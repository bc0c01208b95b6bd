import { createHash } from "node:crypto";
import { request } from "node:https";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { LABELS } from "../../src/api/names.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import type { Lease, SessionStore } from "../../src/sessions/session-log.ts";
import { eventually } from "../eventually.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { CASES, CHART, find, NAMESPACE, parseManifests, RELEASE, render } from "./helm.ts";
import { ended, Installation, type Item, type RunningProcess, TEAM } from "./installation.ts";

/**
 * The chart on a real API server: what it renders is accepted, what the processes do is allowed, an
 * upgrade keeps what the operator wrote, and nothing is left after it. No kubelet, no controllers of
 * Kubernetes: the test plays harness, and the two processes run here as their service accounts.
 */

let installed: Installation;
let operator: RunningProcess | undefined;
let store: SessionStore | undefined;

beforeAll(async () => {
  installed = await Installation.start();
}, 120_000);

afterAll(async () => {
  operator?.child.kill("SIGKILL");
  await store?.close();
  await installed?.stop();
}, 60_000);

const version = "drover.dev/v1alpha1";
const agent = {
  apiVersion: version,
  kind: "Agent",
  metadata: { name: "coder", namespace: TEAM },
  spec: { model: "scripted", tools: [{ type: "agent_toolset_20260401" }] },
};
const template = {
  apiVersion: version,
  kind: "SandboxTemplate",
  metadata: { name: "node", namespace: TEAM },
  spec: { image: "drover-sandbox:0.1.0" },
};
const vault = {
  apiVersion: version,
  kind: "CredentialVault",
  metadata: { name: "tools", namespace: TEAM },
  spec: {
    entries: [
      {
        name: "t",
        mcpServerUrl: "https://tools.example.com/mcp",
        secretRef: { name: "t", key: "k" },
      },
    ],
  },
};
const pickyPool = {
  apiVersion: version,
  kind: "HarnessPool",
  metadata: { name: "picky", namespace: NAMESPACE },
  spec: {
    replicas: 0,
    allowedNamespaces: { from: "Selector", selector: { matchLabels: { team: "a" } } },
  },
};
const session = (name: string, more: object = {}) => ({
  apiVersion: version,
  kind: "AgentSession",
  metadata: { name, namespace: TEAM },
  spec: {
    agentRef: { name: "coder" },
    sandboxTemplateRef: { name: "node" },
    messages: [{ text: "go" }],
    ...more,
  },
});

describe.each(CASES)("with $name", ({ values }) => {
  it("the API server accepts every object by server-side apply, and warns of nothing", async () => {
    const objects = (await render(values)).filter(
      ({ apiVersion }) => !apiVersion.startsWith("monitoring.coreos.com/"),
    );
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });

    const result = await installed.api.kubectl(
      ["apply", "--server-side", "--dry-run=server", "-n", NAMESPACE, "-f", "-"],
      list,
    );

    expect(result.stderr).toBe("");
    expect(result.stdout.trim().split("\n")).toHaveLength(objects.length);
  });
});

it("an upgrade keeps the passwords that an evaluation's Valkey has, and makes those it lacks", async () => {
  const name = `${RELEASE}-valkey`;
  const encode = (text: string) => Buffer.from(text).toString("base64");
  const kept = { harness: encode("kept-harness"), edge: encode("kept-edge") };
  const metadata = {
    name,
    namespace: NAMESPACE,
    labels: { [LABELS.managedBy]: "Helm" },
    annotations: {
      "meta.helm.sh/release-name": RELEASE,
      "meta.helm.sh/release-namespace": NAMESPACE,
    },
  };
  await installed.apply({ apiVersion: "v1", kind: "Secret", metadata, data: kept });

  const asUpgrade = ["-n", NAMESPACE, "--dry-run=server", "--show-only", "templates/valkey.yaml"];
  const values = ["-f", `${CHART}/values-eval.yaml`];
  const text = await installed.helm("template", RELEASE, CHART, ...asUpgrade, ...values);
  await installed.kubectl(["delete", "secret", name, "-n", NAMESPACE]);

  const secret = find(parseManifests(text), "Secret", name) as unknown as Pick<Item, "data">;
  expect(secret.data).toMatchObject(kept);
  expect(secret.data?.["proxy"]).toMatch(/^[A-Za-z0-9+/]{52,}=*$/);
  const users = Buffer.from(secret.data?.["users.acl"] ?? "", "base64").toString();
  const hash = createHash("sha256").update("kept-harness").digest("hex");
  expect(users).toContain(`user harness reset on #${hash} `);
});

describe("installed", () => {
  beforeAll(async () => {
    await installed.helm("install", RELEASE, CHART, "-n", NAMESPACE, ...installed.values);
    await startOperator();
  }, 90_000);

  it("the operator fills the issuer's Secret, and reads no other", async () => {
    const { data } = await installed.get("secret", NAMESPACE, "drover-issuer-key");

    expect(Object.keys(data ?? {}).toSorted()).toEqual(["signing-key.json", "tls.crt", "tls.key"]);
    const other = await installed.api.kubectl([
      "auth",
      "can-i",
      "get",
      "secret/model-key",
      "-n",
      NAMESPACE,
      `--as=system:serviceaccount:${NAMESPACE}:drover-operator`,
    ]);
    expect(other.stdout.trim()).toBe("no");
  });

  it.each([
    { name: "the default pool", workload: "drover-harness-default" },
    { name: "the edge", workload: "drover-edge" },
  ])("$name gets its pods, and the install namespace would run them", async ({ workload }) => {
    const deployment = await eventually("the Deployment", () =>
      installed.get("deployment", NAMESPACE, workload),
    );
    const { metadata, spec } = deployment.spec["template"] as { metadata: object; spec: object };
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { ...metadata, name: "a-pod", namespace: NAMESPACE },
      spec,
    };

    const result = await installed.api.kubectl(
      ["create", "--dry-run=server", "-f", "-"],
      JSON.stringify(pod),
    );

    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  });

  it("a session runs, gets a sandbox that the policy admits, and goes", async () => {
    await installed.apply(agent, template, vault, pickyPool);
    await installed.apply(session("gone", { ttlSecondsAfterFinished: 0 }));
    const lease = await claim("gone");
    await askForSandbox(lease);
    await eventually("its sandbox", async () => (await sandboxes()).length === 1);
    expect(await installed.names("networkpolicy", "-n", TEAM)).toHaveLength(1);

    await lease.emitEvents(
      [
        {
          id: systemRng.id("sevt"),
          type: "session.status_idle",
          data: { stop_reason: "end_turn" },
        },
      ],
      { release: { kind: "idle", why: "end_turn" } },
    );

    await eventually("no session", async () => (await sessions()).length === 0);
    await eventually("no sandbox", async () => (await sandboxes()).length === 0);
    await eventually(
      "no policy",
      async () => (await installed.names("networkpolicy", "-n", TEAM)).length === 0,
    );
  }, 120_000);

  it("references that need more rights are looked at: a pool by label, a vault, a missing agent", async () => {
    await installed.apply(
      session("by-label", { harnessPoolRef: { name: "picky" } }),
      session("stuck", { agentRef: { name: "none" } }),
    );

    await eventually("a session of the pool by label", async () => {
      const { status } = await installed.get("ags", TEAM, "by-label");
      return status?.["sessionId"] !== undefined;
    });
    const events = () => installed.kubectl(["events", "-n", TEAM, "--for", "agentsession/stuck"]);
    await eventually("an Event", async () => (await events()) !== "");
    expect(await events()).toContain("InvalidReference");
    const vaultStatus = await eventually("the vault's status", async () => {
      const { status } = await installed.get("cvt", TEAM, "tools");
      return status?.["conditions"];
    });
    expect(JSON.stringify(vaultStatus)).toContain("AccessDenied");
    await installed.kubectl(["delete", "ags", "by-label", "stuck", "-n", TEAM, "--timeout=40s"]);
  }, 120_000);

  it("the issuer asks the API server about the token of whoever calls", async () => {
    const token = await installed
      .kubectl(["create", "token", "default", "-n", NAMESPACE])
      .catch(
        async () =>
          await installed.kubectl(["create", "token", "drover-operator", "-n", NAMESPACE]),
      );

    expect(await postTokens(operator?.issuerPort ?? 0, token.trim())).toBe(401);
  });

  it("an edge that is turned off goes, and comes back with it", async () => {
    const edges = () =>
      installed.names("deployments", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=edge");
    expect(await edges()).toEqual(["deployment.apps/drover-edge"]);

    await startOperator("--set", "edge.enabled=false");
    await eventually("no edge", async () => (await edges()).length === 0);

    await startOperator();
    await eventually("an edge", async () => (await edges()).length === 1);
  }, 90_000);

  it("nothing the operator did was forbidden, and each of its rights was needed", async () => {
    const requests = await installed.audited("drover-operator");
    const used = new Set(requests.map(({ resource, verb }) => `${resource}: ${verb}`));
    const granted = await rightsOf("operator");

    expect(requests.filter(({ code }) => code === 403)).toEqual([]);
    expect(granted.filter((right) => !used.has(right) && !UNSEEN.includes(right))).toEqual([]);
  });

  it("an upgrade keeps the issuer's keys, and what the operator wrote into objects of the chart", async () => {
    const before = await installed.get("secret", NAMESPACE, "drover-issuer-key");
    const more = ["--set", "operator.logLevel=debug", "--set", "defaultPool.concurrency=7"];
    more.push("--set", "defaultPool.mcpCallTimeoutSeconds=60");
    // As an autoscaler would; Helm gives the field up in the same upgrade.
    await installed.kubectl(["scale", "hrp/default", "-n", NAMESPACE, "--replicas=3"]);
    more.push("--set", "defaultPool.replicas=null");

    await installed.helm("upgrade", RELEASE, CHART, "-n", NAMESPACE, ...installed.values, ...more);

    const after = await installed.get("secret", NAMESPACE, "drover-issuer-key");
    const pool = await installed.get("hrp", NAMESPACE, "default");
    expect(after.data).toEqual(before.data);
    expect(pool.spec).toMatchObject({ concurrency: 7, mcpCallTimeoutSeconds: 60, replicas: 3 });
    expect(pool.status?.["code"]).toMatch(/^[0-9a-z]{4}$/);
  });
});

describe("uninstalled", () => {
  const ours = "app.kubernetes.io/part-of=drover";

  it("in the middle of the work, the operator ends well when it is asked to", async () => {
    await installed.apply(session("kept"));
    await askForSandbox(await claim("kept"));
    await eventually("its sandbox", async () => (await sandboxes()).length === 1);
    expect(await isolation()).toHaveLength(2);
    expect(await stopOperator()).toBe(0);
  }, 90_000);

  it("the hook, with the rights it has, releases the sessions and deletes what the operator made", async () => {
    const hooks = (await render(installed.values)).filter(
      ({ kind, metadata }) =>
        metadata.annotations?.["helm.sh/hook"] === "pre-delete" && kind !== "Job",
    );
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: hooks });
    await installed.kubectl(["apply", "-n", NAMESPACE, "-f", "-"], list);

    const hook = await installed.run("Job", "drover-cleanup");
    const code = await ended(hook);
    const requests = await installed.audited("drover-cleanup");

    await installed.kubectl(["delete", "-n", NAMESPACE, "-f", "-"], list);
    expect(requests.filter((one) => one.code === 403)).toEqual([]);
    const used = new Set(requests.map(({ resource, verb }) => `${resource}: ${verb}`));
    expect((await rightsOf("cleanup")).filter((right) => !used.has(right))).toEqual([]);
    expect({ code, output: hook.output() }).toMatchObject({ code: 0 });
    expect([...(await isolation()), ...(await sandboxes())]).toEqual([]);
    const { metadata } = await installed.get("ags", TEAM, "kept");
    expect(metadata.finalizers).toBeUndefined();
    const { spec } = await installed.get("deployment", NAMESPACE, "drover-operator");
    expect(spec["replicas"]).toBe(0);
  }, 60_000);

  it("Helm removes the rest: nothing of ours is left but the CRDs and the user's objects", async () => {
    await installed.helm("uninstall", RELEASE, "-n", NAMESPACE, "--no-hooks");

    const namespaced =
      "pods,deployments,statefulsets,services,serviceaccounts,configmaps,secrets,networkpolicies,poddisruptionbudgets,roles,rolebindings,jobs,leases.coordination.k8s.io,harnesspools";
    const wide =
      "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    expect(await installed.names(namespaced, "-A", "-l", ours)).toEqual([]);
    expect(await installed.names(wide, "-l", ours)).toEqual([]);
    expect(await sessions()).toEqual(["agentsession.drover.dev/kept"]);
  });
});

/** Rights that the audit log of this story does not show. */
const UNSEEN = [
  // A server-side apply that makes an object needs it, and is recorded as a patch.
  "serviceaccounts: create",
  "networking.k8s.io/networkpolicies: create",
  "apps/deployments: create",
  "policy/poddisruptionbudgets: create",
  // Asked for by OwnerReferencesPermissionEnforcement, inside the API server.
  "drover.dev/agentsessions/finalizers: update",
  "drover.dev/harnesspools/finalizers: update",
  // When the cache is behind, when a pod is there already, when an Event is repeated.
  "drover.dev/agentsessions: get",
  "pods: get",
  "events.k8s.io/events: patch",
  // No more than list, which they have.
  "drover.dev/agents: get",
  "drover.dev/sandboxtemplates: get",
  "drover.dev/credentialvaults: get",
  "drover.dev/harnesspools: get",
];

const isolation = () =>
  installed.names(
    "networkpolicies,serviceaccounts",
    "-n",
    TEAM,
    "-l",
    "app.kubernetes.io/managed-by=drover-operator",
  );

/** In place of the one that runs, with these values besides those of the installation. */
async function startOperator(...values: string[]): Promise<void> {
  await stopOperator();
  const started = await installed.run("Deployment", "drover-operator", ...values);
  operator = started;
  await eventually("a ready operator", async () => {
    if (started.child.exitCode !== null) throw new Error(started.output());
    return (await fetch(`http://127.0.0.1:${started.healthPort}/readyz`)).ok;
  });
}

/** Its exit code; undefined when none runs. */
async function stopOperator(): Promise<number | null | undefined> {
  operator?.child.kill("SIGTERM");
  return operator && (await ended(operator));
}

async function claim(name: string): Promise<Lease> {
  const code = await eventually("the pool's code", async () => {
    const { status } = await installed.get("hrp", NAMESPACE, "default");
    return status?.["code"] as string | undefined;
  });
  store ??= await openRedisStore({
    url: installed.redis.url,
    pools: [{ code, partitions: 16 }],
    timings: { ttlMs: 60_000, renewMs: 1_000 },
  });
  const signal = AbortSignal.timeout(30_000);
  for await (const lease of store.queue("a-worker").claim({ capacity: () => 1, signal })) {
    const { snapshot } = await lease.getSession();
    if (snapshot.object?.name !== name) continue;
    for await (const event of lease.getEvents()) void event;
    return lease;
  }
  throw new Error(`nobody may claim ${name}`);
}

async function askForSandbox(lease: Lease): Promise<void> {
  const data = { hand: "sandbox", generation: 1, template: "node" };
  await lease.emitEvents([{ id: systemRng.id("sevt"), type: "sandbox.requested", data }]);
}

const sandboxes = () => installed.names("pods", "-n", TEAM, "-l", "drover.dev/sandbox=true");
const sessions = () => installed.names("ags", "-n", TEAM);

interface Rule {
  apiGroups: string[];
  resources: string[];
  verbs: string[];
}

/** As the audit log words them. */
async function rightsOf(component: string): Promise<string[]> {
  const roles = (await render(installed.values)).filter(
    ({ kind, metadata }) =>
      /^(Cluster)?Role$/.test(kind) &&
      metadata.labels?.["app.kubernetes.io/component"] === component,
  );
  const rules = roles.flatMap((role) => role["rules"] as Rule[]);
  return rules.flatMap(({ apiGroups: [group = ""], resources, verbs }) =>
    resources.flatMap((resource) =>
      verbs.map((verb) => `${group === "" ? "" : `${group}/`}${resource}: ${verb}`),
    ),
  );
}

/** The status of `POST /v1/tokens`; the certificate is self-signed and pinned elsewhere. */
async function postTokens(port: number, token: string): Promise<number> {
  return await new Promise((resolve, reject) => {
    const call = request({
      host: "127.0.0.1",
      port,
      path: "/v1/tokens",
      method: "POST",
      rejectUnauthorized: false,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    });
    call.on("response", (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    call.on("error", reject);
    call.end("{}");
  });
}
