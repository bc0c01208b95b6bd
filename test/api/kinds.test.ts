import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { parse, stringify } from "yaml";
import { KIND_NAMES, KINDS } from "../../src/api/kinds.ts";
import { KIND_EXAMPLES } from "../../src/cmd/generate/kind-examples.ts";
import type { KubeObject } from "../../src/kube/objects.ts";
import { validateManifest } from "../../src/local/manifest.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { eventually } from "../eventually.ts";

let server: ApiServer;

beforeAll(async () => {
  server = await startApiServer();
  await ok(["apply", "-f", "crds"]);
  await ok(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
  await ok(["create", "namespace", "drover-system"]);
  for (const { plural } of KINDS) await published(plural);
}, 120_000);

afterAll(async () => {
  await server.stop();
});

/** The API server publishes the schemas of CRDs one by one, a moment after it serves their objects. */
async function published(plural: string): Promise<void> {
  await eventually(
    `the schema of ${plural}`,
    async () => (await server.kubectl(["explain", plural])).code === 0,
  );
}

async function ok(args: readonly string[], stdin?: unknown): Promise<string> {
  const text = stdin === undefined ? undefined : JSON.stringify(stdin);
  const { code, stdout, stderr } = await server.kubectl(args, text);
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function refused(args: readonly string[], stdin?: unknown): Promise<string> {
  const text = stdin === undefined ? undefined : JSON.stringify(stdin);
  const { code, stderr } = await server.kubectl(args, text);
  expect(code).toBe(1);
  return stderr;
}

const apply = (object: unknown) => ok(["apply", "-f", "-"], object);

async function read<T = Record<string, unknown>>(kind: string, name: string): Promise<T> {
  return JSON.parse(await ok(["get", kind, name, "-o", "json"])) as T;
}

function patch(kind: string, name: string, change: unknown): string[] {
  return ["patch", kind, name, "--type=merge", "-p", JSON.stringify(change)];
}

function patchStatus(kind: string, name: string, status: unknown): Promise<string> {
  return ok([...patch(kind, name, { status }), "--subresource=status"]);
}

const session = (name: string, spec: Record<string, unknown> = {}) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "AgentSession",
  metadata: { name },
  spec: { agentRef: { name: "coder" }, messages: [{ text: "Hello." }], ...spec },
});

describe("installation", () => {
  it("the API server finds nothing to complain of in the CRDs", async () => {
    const { items } = JSON.parse(await ok(["get", "crd", "-o", "json"])) as {
      items: { status: { conditions: { type: string; status: string }[] } }[];
    };

    expect(items).toHaveLength(KINDS.length);
    for (const { status } of items) {
      const conditions = status.conditions.map(({ type, status: value }) => [type, value]);
      expect(conditions).toEqual([
        ["NamesAccepted", "True"],
        ["Established", "True"],
      ]);
    }
  });

  it.each(KIND_NAMES)("kubectl explain describes %s and its fields", async (name) => {
    const plural = KINDS.find(({ kind }) => kind === name)?.plural ?? "";

    const text = await ok(["explain", "--recursive", `${plural}.spec`]);

    expect(text).toContain("DESCRIPTION:");
    expect(await ok(["explain", `${plural}.spec`])).not.toContain("<no description>");
  });
});

describe("examples and defaults", () => {
  it.each(KIND_NAMES)("the %s of the documentation is accepted", async (name) => {
    expect(await apply(KIND_EXAMPLES[name])).toContain("created");
  });

  it.each(KIND_NAMES)("%s gets the same defaults here and in local mode", async (name) => {
    const example = KIND_EXAMPLES[name] as unknown as KubeObject & { metadata: { name: string } };
    const namespace = example.metadata.namespace ?? "default";
    await apply(example);

    const stored = JSON.parse(
      await ok(["get", name, example.metadata.name, "-n", namespace, "-o", "json"]),
    ) as { spec: unknown; status: unknown };

    expect(validateManifest(example, "x.yaml")).toMatchObject({ spec: stored.spec });
    expect(stored.status).toEqual({ observedGeneration: -1 });
  });

  it("the columns of kubectl get are those of the kinds", async () => {
    const header = (text: string) => text.split("\n")[0]?.trim().split(/\s+/);

    expect(header(await ok(["get", "ags"]))).toEqual([
      "NAME",
      "STATE",
      "READY",
      "REASON",
      "AGENT",
      "AGE",
    ]);
    expect(header(await ok(["get", "ags", "-o", "wide"]))).toEqual([
      "NAME",
      "STATE",
      "READY",
      "REASON",
      "AGENT",
      "POOL",
      "TEMPLATE",
      "MESSAGE",
      "AGE",
    ]);
    expect(header(await ok(["get", "hrp", "-n", "drover-system"]))).toEqual([
      "NAME",
      "DESIRED",
      "READY",
      "MODEL",
      "AGE",
    ]);
  });

  it("kubectl get drover lists every kind", async () => {
    const names = await ok(["get", "drover", "-A", "-o", "name"]);

    for (const { kind } of KINDS) expect(names).toContain(`${kind.toLowerCase()}.drover.dev/`);
  });
});

describe("changes", () => {
  const inline = {
    agentRef: null,
    agent: {
      model: "m",
      tools: [{ type: "custom", name: "t", description: "", inputSchema: { type: "object" } }],
    },
  };

  beforeAll(async () => {
    await apply(
      session("fixed", {
        sandboxTemplateRef: { name: "a" },
        vaultRefs: [{ name: "a" }, { name: "b" }],
      }),
    );
    await apply(session("fixed-inline", inline));
    await apply(session("bare"));
  }, 60_000);

  it.each([
    ["agentRef", "fixed", { agentRef: { name: "other" } }],
    ["agentRef", "fixed", { agentRef: null, agent: { model: "m" } }],
    ["agent", "fixed-inline", { agent: { model: "other" } }],
    [
      "agent",
      "fixed-inline",
      { agent: { tools: [{ ...inline.agent.tools[0], inputSchema: {} }] } },
    ],
    ["messages", "fixed", { messages: [{ text: "Other." }] }],
    ["sandboxTemplateRef", "fixed", { sandboxTemplateRef: { name: "other" } }],
    ["sandboxTemplateRef", "fixed", { sandboxTemplateRef: null }],
    ["sandboxTemplateRef", "bare", { sandboxTemplateRef: { name: "a" } }],
    ["vaultRefs", "fixed", { vaultRefs: [{ name: "b" }, { name: "a" }] }],
    ["vaultRefs", "bare", { vaultRefs: [{ name: "a" }] }],
    ["harnessPoolRef", "fixed", { harnessPoolRef: { name: "other" } }],
  ])("%s of %s is not changed by %j", async (field, name, spec) => {
    expect(await refused(patch("ags", name, { spec }))).toContain(
      `\`${field}\` must not be changed; `,
    );
  });

  it("an unchanged session may be applied again, and what may change changes", async () => {
    expect(await apply(session("bare"))).toContain("unchanged");

    await ok(
      patch("ags", "bare", {
        spec: { operatingMode: "Suspended", activeDeadlineSeconds: 60, ttlSecondsAfterFinished: 0 },
      }),
    );

    expect(await ok(patch("ags", "bare", { spec: { operatingMode: "Running" } }))).toContain(
      "patched",
    );
  });

  it("a stopped session stays stopped", async () => {
    await apply(session("over"));
    await ok(patch("ags", "over", { spec: { operatingMode: "Stopped" } }));

    expect(await refused(patch("ags", "over", { spec: { operatingMode: "Running" } }))).toContain(
      "`operatingMode` must stay `Stopped` once it is; create a new AgentSession",
    );
  });

  it("the partitions of a pool are not changed, its replicas are", async () => {
    await apply({ ...KIND_EXAMPLES.HarnessPool, metadata: { name: "fixed" } });

    expect(await refused(patch("hrp", "fixed", { spec: { partitions: 8 } }))).toContain(
      "`partitions` must not be changed; create a new HarnessPool",
    );
    expect(await ok(patch("hrp", "fixed", { spec: { replicas: 1 } }))).toContain("patched");
  });
});

describe("size", () => {
  it("the largest session that fits its schema is stored and can be changed", async () => {
    const messages = Array.from({ length: 16 }, () => ({ text: "x".repeat(32_768) }));

    await ok(["apply", "--server-side", "-f", "-"], session("full", { messages }));

    const change = { spec: { operatingMode: "Suspended" } };
    expect(await ok(patch("ags", "full", change))).toContain("patched");
  });

  it.each([
    [40_000, "spec.messages[0].text: Too long: may not be more than 32768 bytes"],
    [10_000_000, "Request entity too large"],
  ])("a message of %i characters is refused", async (length, message) => {
    const object = session("big", { messages: [{ text: "x".repeat(length) }] });

    expect(await refused(["apply", "-f", "-"], object)).toContain(message);
    expect(() => validateManifest(object, "x.yaml")).toThrow("Too long");
  });
});

describe("subresources and selectors", () => {
  it("a harness pool is scaled, and /scale tells an autoscaler its pods", async () => {
    await apply({ ...KIND_EXAMPLES.HarnessPool, metadata: { name: "scaled" } });
    await patchStatus("hrp", "scaled", { replicas: 2, selector: "drover.dev/pool=scaled" });

    await ok(["scale", "hrp", "scaled", "--replicas=5"]);

    const path = "/apis/drover.dev/v1alpha1/namespaces/default/harnesspools/scaled/scale";
    expect(JSON.parse(await ok(["get", "--raw", path]))).toMatchObject({
      spec: { replicas: 5 },
      status: { replicas: 2, selector: "drover.dev/pool=scaled" },
    });
  });

  it("an edit of the object does not touch its status, and status does not touch its spec", async () => {
    await apply(session("apart"));
    await patchStatus("ags", "apart", { state: "Running", observedGeneration: 1 });

    await ok(
      patch("ags", "apart", { spec: { operatingMode: "Stopped" }, status: { state: "Idle" } }),
    );

    expect(await read("ags", "apart")).toMatchObject({
      spec: { operatingMode: "Stopped" },
      status: { state: "Running" },
    });
  });

  it("sessions are selected by state, agent and template", async () => {
    await apply(session("busy", { sandboxTemplateRef: { name: "special" } }));
    await apply({
      ...session("calm"),
      spec: { ...session("calm").spec, agentRef: { name: "poet" } },
    });
    await patchStatus("ags", "busy", { state: "Failed" });
    const select = (selector: string) =>
      ok(["get", "ags", "-o", "name", "--field-selector", selector]);

    expect(await select("status.state=Failed")).toBe("agentsession.drover.dev/busy\n");
    expect(await select("spec.agentRef.name=poet")).toBe("agentsession.drover.dev/calm\n");
    expect(await select("spec.sandboxTemplateRef.name=special")).toBe(
      "agentsession.drover.dev/busy\n",
    );
  });

  it("kubectl wait works by condition and by state", async () => {
    await apply(session("waited"));
    const condition = {
      type: "Completed",
      status: "True",
      observedGeneration: 1,
      lastTransitionTime: "2026-01-01T00:00:00Z",
      reason: "EndTurn",
      message: "",
    };
    await patchStatus("ags", "waited", {
      state: "Idle",
      observedGeneration: 1,
      conditions: [condition],
    });

    expect(
      await ok(["wait", "ags/waited", "--for=condition=Completed", "--timeout=10s"]),
    ).toContain("condition met");
    expect(
      await ok(["wait", "ags/waited", "--for=jsonpath={.status.state}=Idle", "--timeout=10s"]),
    ).toContain("condition met");
  });
});

describe("names", () => {
  it.each([
    ["63 characters", "a".repeat(63)],
    ["64 characters", "a".repeat(64)],
    ["253 characters", `${"a".repeat(252)}b`],
    ["253 characters and another last letter", `${"a".repeat(252)}c`],
    ["a leading digit", "1st"],
    ["dots", "team.a.b"],
  ])("a session's name may have %s", async (_, name) => {
    expect(await apply(session(name))).toContain("created");
    expect(validateManifest(session(name), "x.yaml").metadata.name).toBe(name);
  });

  it.each([
    ["254 characters", "a".repeat(254), "must be no more than 253"],
    ["two dots side by side", "a..b", "a lowercase RFC 1123 subdomain must"],
    ["a hyphen before a dot", "a-.b", "a lowercase RFC 1123 subdomain must"],
  ])("a session's name with %s is refused here and in local mode", async (_, name, message) => {
    expect(await refused(["apply", "-f", "-"], session(name))).toContain(message);
    expect(() => validateManifest(session(name), "x.yaml")).toThrow(message);
  });

  it("a template's name fits into a label", async () => {
    const template = (name: string) => ({ ...KIND_EXAMPLES.SandboxTemplate, metadata: { name } });

    expect(await apply(template("t".repeat(63)))).toContain("created");
    expect(await refused(["apply", "-f", "-"], template("t".repeat(64)))).toContain(
      "metadata.name: Too long: may not be more than 63 bytes",
    );
  });
});

describe("objects stored under an earlier, looser definition", () => {
  const template = (name: string, memory: string) => ({
    ...KIND_EXAMPLES.SandboxTemplate,
    metadata: { name },
    spec: { image: "drover-sandbox:0.1.0", resources: { memory } },
  });

  it("do not spoil the list of their kind, can still be labelled, and can be repaired", async () => {
    await withLooseTemplates(async () => {
      await apply(template("stored-bad", "1Gigs"));
      await apply(template("stored-empty", ""));
    });
    await apply(template("stored-good", "1Gi"));

    const names = await ok(["get", "sbt", "-o", "name"]);
    await ok(["label", "sbt", "stored-bad", "team=a"]);

    expect(names).toContain("stored-bad");
    expect(names).toContain("stored-good");
    const bad = { spec: { resources: { memory: "2Gigs" } } };
    expect(await refused(patch("sbt", "stored-good", bad))).toContain(
      "must be a quantity of bytes",
    );
    const good = { spec: { resources: { memory: "2Gi" } } };
    expect(await ok(patch("sbt", "stored-bad", good))).toContain("patched");
  });

  /** Runs with a definition that lets any memory through, then installs ours again. */
  async function withLooseTemplates(run: () => Promise<void>): Promise<void> {
    const file = "crds/sandboxtemplates.drover.dev.yaml";
    const crd = parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    const loose = stringify(crd).replaceAll(/self[.]matches\([^\n]*Gi[^\n]*/g, "'true'");
    expect(loose).not.toBe(stringify(crd));
    const { code, stderr } = await server.kubectl(["apply", "-f", "-"], loose);
    expect([code, stderr]).toEqual([0, ""]);
    await settled("1Gigs", (result) => result === 0);
    await run();
    await ok(["apply", "-f", file]);
    await settled("1Gigs", (result) => result !== 0);
  }

  /** A changed definition takes effect a moment after it was stored. */
  async function settled(memory: string, wanted: (code: number) => boolean): Promise<void> {
    const probe = JSON.stringify(template("probe", memory));
    await eventually("the changed definition takes effect", async () => {
      const { code } = await server.kubectl(["apply", "--dry-run=server", "-f", "-"], probe);
      return wanted(code);
    });
  }
});
