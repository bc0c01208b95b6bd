import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  apply,
  kubectl,
  nodeIsThisHost,
  RELEASE,
  readLog,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
} from "./cluster.ts";
import { MODEL_KEY, session } from "./installation.ts";
import { seenByNotes } from "./notes.ts";
import { type VaultRig, vaultRig } from "./vault-rig.ts";
import { putModelKey, putSecret } from "./vault-setup.ts";

/**
 * Longest a changed or withdrawn value may still be used
 * (docs/design/security.md#what-is-promised), in ms.
 */
const EFFECT_MS = 5_000;
/**
 * Longest a value is used after it was last read, while the vault does not answer
 * (docs/design/security.md#vault).
 */
const HELD_MS = 60_000;
const TOKENS = ["CNRY-e2e-notes-first-value", "CNRY-e2e-notes-other-value"] as const;
// Killing a process as the kernel does needs the node's process table.
const describeOnThisHost = nodeIsThisHost() ? describe : describe.skip;

let rig: VaultRig;
beforeAll(async () => {
  rig = await vaultRig(TOKENS);
}, 300_000);
afterAll(async () => {
  await rig?.close();
}, 120_000);

describe("a harness pool whose model key is in the vault", () => {
  afterAll(async () => {
    await kubectl(["delete", "hrp", "vaulted", "-n", SYSTEM, "--ignore-not-found"]);
  });

  it("reads it as its own service account, which the vault asks the API server about", async () => {
    await putModelKey(rig.vault, MODEL_KEY);
    await apply(SYSTEM, {
      apiVersion: "drover.dev/v1alpha1",
      kind: "HarnessPool",
      metadata: { name: "vaulted" },
      spec: {
        replicas: 1,
        allowedNamespaces: { from: "All" },
        model: {
          baseUrl: `http://${RELEASE}-scripted-model.${SYSTEM}.svc:8080`,
          apiKeyVaultRef: { path: "pools/vaulted/model" },
        },
      },
    });
    const ready = ["hrp/vaulted", "-n", SYSTEM, "--for=condition=Ready", "--timeout=120s"];
    await kubectl(["wait", ...ready]);

    await apply(
      rig.namespace,
      session("pooled", "tolerant", { harnessPoolRef: { name: "vaulted" } }),
    );
    await waitCompleted(rig.namespace, "pooled");

    const log = await readLog(await sessionIdOf(rig.namespace, "pooled"));
    expect(log.filter(({ type }) => type === "session.error")).toEqual([]);
    expect(log.some(({ type }) => type === "model.request_end")).toBe(true);
  }, 240_000);
});

describe("while a session runs", () => {
  it("a rotated credential is used within five seconds", async () => {
    const run = await startGated("rotated");
    await run.noted(1);
    expect((await seenByNotes(rig.namespace)).at(-1)).toBe(headerHash(TOKENS[0]));

    await putSecret(rig.vault, placeOf("rotated"), TOKENS[1]);
    await delay(EFFECT_MS);
    await run.open("gate-1");
    await run.noted(2);

    expect((await seenByNotes(rig.namespace)).at(-1)).toBe(headerHash(TOKENS[1]));
    expect(await run.results()).toEqual([
      expect.objectContaining({ is_error: false }),
      expect.objectContaining({ is_error: false }),
    ]);
    await run.finish();
  }, 180_000);

  it("a revoked credential is not used after five seconds, and the model is told why", async () => {
    const run = await startGated("revoked");
    await run.noted(1);
    const before = await seenByNotes(rig.namespace);

    await rig.vault.run(["kv", "delete", "-mount=kv", `t/${rig.namespace}/v/revoked/notes`]);
    await delay(EFFECT_MS);
    await run.open("gate-1");
    await run.noted(2);

    expect(await seenByNotes(rig.namespace)).toEqual(before);
    const refused = (await run.results()).at(-1);
    expect(refused).toMatchObject({ is_error: true });
    expect(String(refused?.["content"])).toMatch(/entry "notes" of credential vault "revoked"/);

    await putSecret(rig.vault, placeOf("revoked"), TOKENS[0]);
    await run.open("gate-2");
    await run.noted(3);
    expect((await run.results()).at(-1)).toMatchObject({ is_error: false });
    await run.finish();
  }, 180_000);

  it("a sealed vault is named to the model once what is held has had its life, and serves again when it is unsealed", async () => {
    const run = await startGated("sealed");
    await run.noted(1);
    await rig.vault.seal();
    const before = await seenByNotes(rig.namespace);
    await delay(HELD_MS + 2_000);
    await run.open("gate-1");
    await run.noted(2);

    expect(await seenByNotes(rig.namespace)).toEqual(before);
    const refused = (await run.results()).at(-1);
    expect(refused).toMatchObject({ is_error: true });
    expect(String(refused?.["content"])).toMatch(/vault.*sealed/i);

    await rig.vault.unseal();
    await run.open("gate-2");
    await run.noted(3);
    expect((await run.results()).at(-1)).toMatchObject({ is_error: false });
    await run.finish();
  }, 300_000);
});

describeOnThisHost("while a session runs on a node of our own", () => {
  it("a vault that is killed takes nothing from who holds a value, and serves again when it is back", async () => {
    const run = await startGated("restarted");
    await run.noted(1);
    await rig.vault.restart();
    await run.open("gate-1");
    await run.noted(2);
    expect((await run.results()).at(-1)).toMatchObject({ is_error: false });

    await rig.vault.unseal();
    await delay(EFFECT_MS + 1_000);
    await run.open("gate-2");
    await run.noted(3);
    expect((await run.results()).at(-1)).toMatchObject({ is_error: false });
    await run.finish();
  }, 240_000);
});

function placeOf(name: string) {
  return { namespace: rig.namespace, vault: name, path: "notes" };
}

function headerHash(token: string): string {
  return createHash("sha256").update(`Bearer ${token}`).digest("hex");
}

/** A session of three notes with two gates between them, and a vault of its own name. */
async function startGated(name: string) {
  const { namespace, notesUrl } = rig;
  await putSecret(rig.vault, placeOf(name), TOKENS[0]);
  await apply(
    namespace,
    {
      apiVersion: "drover.dev/v1alpha1",
      kind: "CredentialVault",
      metadata: { name },
      spec: {
        entries: [{ name: "notes", mcpServerUrl: notesUrl, vaultRef: { path: "notes" } }],
      },
    },
    session(name, "gated", {
      agent: {
        model: "scripted:gated",
        mcpServers: [{ name: "notes", url: notesUrl }],
        tools: [
          { type: "agent_toolset_20260401" },
          {
            type: "mcp_toolset",
            mcpServerName: "notes",
            defaultConfig: { permissionPolicy: "always_allow" },
          },
        ],
      },
      vaultRefs: [{ name }],
    }),
  );
  const id = await sessionIdOf(namespace, name);
  const results = async () => {
    const log = await readLog(id);
    const notes = log
      .filter(({ type, data }) => type === "tool.intent" && data["target"] === "mcp")
      .map(({ data }) => data["id"]);
    return log
      .filter(({ type, data }) => type === "tool.result" && notes.includes(data["id"]))
      .map(({ data }) => data);
  };
  const open = async (gate: string) => {
    const pod = await eventually(`the sandbox of ${name}`, () => sandboxOf(name), {
      withinMs: 60_000,
    });
    await eventually(
      `${gate} of ${name} opens`,
      async () => {
        await kubectl(["exec", pod, "-n", namespace, "--", "touch", `/workspace/${gate}`]);
        return true;
      },
      { withinMs: 30_000 },
    );
  };
  return {
    results,
    noted: async (count: number) => {
      await eventually(
        `note ${count} of ${name}`,
        async () => {
          return (await results()).length >= count;
        },
        { withinMs: 90_000 },
      );
    },
    open,
    finish: async () => {
      await open("gate-2");
      await waitCompleted(namespace, name);
      await kubectl(["delete", "ags", name, "-n", namespace, "--timeout=90s"]);
    },
  };
}

/** Name of the running sandbox pod of a session. */
async function sandboxOf(name: string): Promise<string | undefined> {
  const pods = await sandboxPods(rig.namespace);
  return pods.find(
    ({ metadata, status }) =>
      metadata.name.startsWith(`${name}-`) && status?.["phase"] === "Running",
  )?.metadata.name;
}
