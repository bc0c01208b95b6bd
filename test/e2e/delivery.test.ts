import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  apply,
  get,
  kubectl,
  type LogEntry,
  list,
  readLog,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
} from "./cluster.ts";
import { type GitPod, REPOSITORY, startGitHost } from "./git-pod.ts";
import { GIT, MODEL_KEY, session } from "./installation.ts";
import { everywhere, findIn, readableIn } from "./marker-search.ts";
import { seenByNotes } from "./notes.ts";
import { type VaultRig, vaultRig } from "./vault-rig.ts";
import { putSecret } from "./vault-setup.ts";

const NOTES_TOKEN = "CNRY-e2e-delivery-notes-token";
const GIT_TOKEN = "CNRY-e2e-delivery-git-token";
const MARKERS = [NOTES_TOKEN, GIT_TOKEN, MODEL_KEY];
const NAME = "delivery";

let rig: VaultRig;
let git: GitPod;
beforeAll(async () => {
  rig = await vaultRig([NOTES_TOKEN]);
  git = await startGitHost(rig.namespace, GIT_TOKEN);
}, 300_000);
afterAll(async () => {
  await rig?.close();
}, 120_000);

describe("a session with three credentials in a real vault", () => {
  let log: LogEntry[] = [];
  const results = () => log.filter(({ type }) => type === "tool.result").map(({ data }) => data);

  it("completes from kubectl apply alone", async () => {
    const place = (path: string) => ({ namespace: rig.namespace, vault: NAME, path });
    await putSecret(rig.vault, place("notes"), NOTES_TOKEN);
    await putSecret(rig.vault, place("app"), GIT_TOKEN);
    await putSecret(rig.vault, place("model"), MODEL_KEY);

    await apply(rig.namespace, vault, delivery());
    await waitCompleted(rig.namespace, NAME, 150);

    log = await readLog(await sessionIdOf(rig.namespace, NAME));
    expect(results()).toHaveLength(4);
  }, 240_000);

  it("called a tool of a server that wants a credential", async () => {
    expect(results()[0]).toMatchObject({
      is_error: false,
      content: `noted "from a vault" for Bearer [redacted:${NAME}/notes]`,
    });
    expect(await seenByNotes(rig.namespace)).toHaveLength(1);
  });

  it("cloned a private repository, committed, and pushed to its branch", async () => {
    expect(results()[1]).toMatchObject({ is_error: false });
    expect(results()[1]?.["content"]).toContain("agent/note");
    expect(await git.refs()).toContain("refs/heads/agent/note");
    expect(await git.log()).toContain("Written in a sandbox that holds no token.");
    const asked = await git.requests();
    expect(asked.length).toBeGreaterThan(3);
    const basic = Buffer.from(`x-access-token:${GIT_TOKEN}`).toString("base64");
    // git's own first try carries nothing; what was answered carried the token.
    expect(asked.map(({ headers }) => headers["authorization"])).toContain(`Basic ${basic}`);
    for (const { url } of asked) expect(url).toMatch(/^\/team\/app(\.git)?\//);
  });

  it("was refused on main, with the reason in its transcript", async () => {
    expect(results()[2]).toMatchObject({ is_error: true });
    expect(results()[2]?.["content"]).toContain("policy: this session may push to agent/** only");
    expect(await git.log()).not.toContain("straight to main");
  });

  it("found nothing when it looked for a credential", async () => {
    expect(results()[3]?.["content"]).toContain("looked everywhere");
    expect(findIn({ log: JSON.stringify(log) }, MARKERS)).toEqual([]);
  });

  it("left no token in any object, Event, log, request or in Redis", async () => {
    const places = await everywhere([SYSTEM]);

    expect(places["redis"]).toContain("from a vault");
    expect(places["logs"]).toContain("session claimed");
    expect(findIn(places, MARKERS)).toEqual([]);
  }, 60_000);

  it("left no token where its sandbox, a harness, or the file system of a proxy can be read", async () => {
    const [sandbox] = await sandboxPods(rig.namespace);
    const where = [sandbox?.metadata.name ?? "", "-n", rig.namespace];
    expect(await readableIn(where, MARKERS)).toEqual([]);
    for (const component of ["harness", "edge"]) {
      const selector = `app.kubernetes.io/component=${component}`;
      for (const { metadata } of await list("pods", SYSTEM, selector)) {
        const containers = component === "harness" ? ["harness", "proxy"] : ["edge"];
        for (const container of containers) {
          const inside = [metadata.name, "-n", SYSTEM, "-c", container];
          expect(await readableIn(inside, [NOTES_TOKEN, GIT_TOKEN])).toEqual([]);
        }
      }
    }
  }, 120_000);

  it("the vault's status tells entry by entry that they were read, and not what they are", async () => {
    await eventually("three entries that were read", async () => {
      const { status } = await get("cvt", rig.namespace, NAME);
      const entries = status?.["entries"] as { name: string; resolved: string }[];
      expect(entries.map(({ name, resolved }) => `${name} ${resolved}`).toSorted()).toEqual([
        "app True",
        "model True",
        "notes True",
      ]);
      return true;
    });
  }, 60_000);

  it("the sandbox's own token is of no use from another sandbox", async () => {
    await apply(rig.namespace, session("neighbour", "tolerant"));
    await waitCompleted(rig.namespace, "neighbour");
    const pods = (await sandboxPods(rig.namespace)).map(({ metadata }) => metadata.name);
    const name = pods.find((pod) => pod.startsWith(NAME)) ?? "";
    const neighbour = pods.find((pod) => pod.startsWith("neighbour")) ?? "";
    const config = await kubectl([
      "exec",
      name,
      "-n",
      rig.namespace,
      "--",
      "git",
      "config",
      "--file=/var/lib/drover/git/config",
      "--get-regexp",
      "extraheader",
    ]);
    const [, edge = "", token = ""] =
      /^http\.(\S+?)\/?\.extraheader Authorization: Bearer (\S+)$/im.exec(config) ?? [];
    expect(token).not.toBe("");
    const ask = `fetch("${edge}/git/app/info/refs?service=git-upload-pack",
      { headers: { authorization: "Bearer " + process.argv[1] } })
      .then((answer) => console.log(answer.status))`;

    const here = ["exec", name, "-n", rig.namespace, "--", "node", "-e", ask, token];
    const elsewhere = ["exec", neighbour, "-n", rig.namespace, "--", "node", "-e", ask, token];
    expect((await kubectl(here)).trim()).toBe("200");
    expect((await kubectl(elsewhere)).trim()).toBe("403");
  }, 150_000);
});

const repositoryUrl = `http://${GIT.host}:${GIT.port}/${REPOSITORY}`;

const vault = {
  apiVersion: "drover.dev/v1alpha1",
  kind: "CredentialVault",
  metadata: { name: NAME },
  spec: {
    entries: [
      {
        name: "notes",
        mcpServerUrl: "http://notes.e2e-vault.svc.cluster.local:8080/mcp",
        vaultRef: { path: "notes" },
      },
      { name: "app", repositoryUrl, vaultRef: { path: "app" } },
      { name: "model", modelProvider: "anthropic", vaultRef: { path: "model" } },
    ],
  },
};

function delivery(): object {
  return session(NAME, "delivery", {
    agent: {
      model: "scripted:delivery",
      mcpServers: [{ name: "notes", url: rig.notesUrl }],
      tools: [
        { type: "agent_toolset_20260401" },
        {
          type: "mcp_toolset",
          mcpServerName: "notes",
          defaultConfig: { permissionPolicy: "always_allow" },
        },
      ],
    },
    vaultRefs: [{ name: NAME }],
    repositories: [{ name: "app", url: repositoryUrl, pushBranches: ["agent/**"] }],
  });
}
