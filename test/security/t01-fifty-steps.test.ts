import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { agentSpec } from "../../src/api/agent.ts";
import type { SessionEvent } from "../../src/protocol/session-event.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { createRegistry } from "../../src/runtime/metrics.ts";
import { Secret } from "../../src/runtime/secret.ts";
import { parseScripts } from "../../src/scripted-model/script.ts";
import { createScriptedModel } from "../../src/scripted-model/server.ts";
import type { SessionRef } from "../../src/sessions/session-log.ts";
import { newRef } from "../builders/sessions.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import { Cleanups } from "../cleanups.ts";
import { eventsOf } from "../integration/harness-bed.ts";
import { type RealMcpServer, startMcpServer } from "../integration/proxy/mcp-server.ts";
import { GitHost } from "../servers/git-host.ts";
import { CredentialRig } from "./rig.ts";
import { newMarker, Sweeper } from "./sweeper.ts";

/**
 * T01: one session with every kind of credential takes fifty turns, uses each of them, and tries to
 * read them: servers echo them, its commands look through environments, files, git and sockets.
 * Every upstream must have got its own credential, and no marker may be anywhere else.
 */

const canary = {
  notes: newMarker("T01"),
  mail: newMarker("T01"),
  git: newMarker("T01"),
  model: newMarker("T01"),
  pool: newMarker("T01"),
};
const TURNS = 50;
const VAULT = "work";

const cleanups = new Cleanups();
let rig: CredentialRig;
let notes: RealMcpServer;
let mail: RealMcpServer;
let host: GitHost;
let model: EchoingModel;
let ref: SessionRef;
let events: SessionEvent[] = [];

beforeAll(async () => {
  rig = await CredentialRig.start(cleanups);
  notes = await startMcpServer(cleanups, { token: canary.notes, stateful: true });
  mail = await startMcpServer(cleanups, { token: canary.mail });
  host = await GitHost.start();
  cleanups.add(async () => await host.close());
  await host.addRepository("team/app", { token: canary.git });
  model = await startEchoingModel();
  for (const [name, token] of Object.entries(canary)) {
    await rig.vault.put(`t/team-a/v/${VAULT}/${name}`, { token });
  }
  const reachable = [notes.authority, mail.authority, host.authority, model.authority];
  await rig.startPlane({ modelUrl: model.url, poolKey: canary.pool, reachable });
  ref = newRef();
  await rig.createSession(ref, snapshot(), "Go.");
  events = await untilIdle();
}, 120_000);

afterAll(async () => await cleanups.run(), 30_000);

describe("a session of fifty turns", () => {
  it("did all its work: tools, clone, commits, pushes, model calls", async () => {
    const results = eventsOf(events, "tool.result").map(({ data }) => data);

    expect(results.filter(({ is_error }) => is_error)).toEqual([]);
    expect(results.length).toBeGreaterThanOrEqual(TURNS - 1);
    expect(Number(await host.read("team/app", "rev-list", "--count", "agent/work"))).toBe(11);
    expect(notes.calls.length).toBeGreaterThanOrEqual(10);
    expect(mail.calls.length).toBeGreaterThanOrEqual(10);
  });

  it("every upstream got its own credential and no other", () => {
    const basic = `Basic ${Buffer.from(`x-access-token:${canary.git}`).toString("base64")}`;
    expect(new Set(notes.authorizations)).toEqual(new Set([`Bearer ${canary.notes}`]));
    expect(new Set(mail.authorizations)).toEqual(new Set([`Bearer ${canary.mail}`]));
    expect(new Set(host.received.map(({ headers }) => headers.authorization))).toEqual(
      new Set([basic]),
    );
    expect(new Set(model.keys)).toEqual(new Set([canary.model]));

    const { git, model: key, mail: mailToken, pool, notes: notesToken } = canary;
    expect(found([key, mailToken, notesToken, pool], "git host", host.received)).toEqual([]);
    expect(found([git, mailToken, notesToken, pool], "model", model.requests)).toEqual([]);
  });

  it("the servers echoed what they got, and the session saw a mark in its place", () => {
    const contents = eventsOf(events, "tool.result").map(({ data }) =>
      JSON.stringify(data.content),
    );

    expect(contents.filter((text) => text.includes(`[redacted:${VAULT}/notes]`)).length).toBe(10);
    expect(contents.filter((text) => text.includes(`[redacted:${VAULT}/mail]`)).length).toBe(10);
    expect(model.echoed).toBeGreaterThan(0);
    // As they cannot in a cluster, its commands read the sidecar's environment and called it.
    expect(contents.filter((text) => text.includes("DROVER_VAULT_ADDRESS=")).length).toBe(1);
    expect(contents.filter((text) => text.includes("a session token is needed")).length).toBe(1);
  });

  it("no marker is in log, transcript, model requests, Redis, metrics or files", async () => {
    const sweeper = new Sweeper(Object.values(canary));
    sweeper.json("events of the session", events);
    for (const { name, output } of rig.processes) sweeper.text(`log of ${name}`, output);
    // What the model was told; the header with its key is in `keys`.
    sweeper.json("requests to the model", model.requests);
    sweeper.text("metrics", await rig.metrics());
    await sweeper.redis(rig.redis.url.replace("//", "//admin:admin@"));
    await sweeper.files(rig.sandboxes);
    await sweeper.files(host.root);
    sweeper.text("audit log of the vault", await rig.vault.auditLog());

    expect(sweeper.findings).toEqual([]);
    expect(sweeper.bytes).toBeGreaterThan(100_000);
  }, 60_000);

  it("no process shows one in its environment or arguments; sidecar and edge alone have them in memory", async () => {
    const sweeper = new Sweeper(Object.values(canary));
    await sweeper.processes(rig.processes.map(({ pid }) => pid));
    for (const { name, pid } of rig.processes) {
      if (name !== "proxy" && name !== "edge") await sweeper.memory([pid]);
    }
    expect(sweeper.findings).toEqual([]);

    const inside = new Sweeper(Object.values(canary));
    await inside.memory([rig.process("proxy").pid, rig.process("edge").pid]);
    expect(new Set(inside.findings.map(({ marker }) => marker))).toEqual(
      new Set([canary.notes, canary.mail, canary.git, canary.model]),
    );
  }, 60_000);
});

function found(markers: string[], place: string, value: unknown) {
  const sweeper = new Sweeper(markers);
  sweeper.json(place, value);
  return sweeper.findings;
}

async function untilIdle(): Promise<SessionEvent[]> {
  const deadline = Date.now() + 90_000;
  for (;;) {
    const seen = await rig.events(ref);
    if (seen.some(({ type }) => type === "session.status_idle")) return seen;
    if (Date.now() > deadline) {
      const logs = rig.processes.map(({ name, output }) => `${name}:\n${output.slice(-3000)}`);
      throw new Error(
        `the end of the session did not happen\n${JSON.stringify(seen.slice(-5))}\n${logs.join("\n")}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function snapshot() {
  const mcpToolset = (mcpServerName: string) => ({
    type: "mcp_toolset" as const,
    mcpServerName,
    defaultConfig: { permissionPolicy: "always_allow" as const },
  });
  const agent = agentSpec.parse({
    model: "scripted:work",
    tools: [{ type: "agent_toolset_20260401" }, mcpToolset("notes"), mcpToolset("mail")],
    mcpServers: [
      { name: "notes", url: notes.url },
      { name: "mail", url: mail.url },
    ],
  });
  const entry = (name: string, target: object) => ({
    name,
    vaultRef: { path: name, key: "token" },
    header: "Authorization",
    scheme: "Bearer",
    ...target,
  });
  const repository = host.repositoryUrl("team/app");
  return aSnapshot({
    sessionId: ref.id,
    tenant: ref.tenant,
    agent: { ...agent, name: "coder", revision: "r1" },
    vaults: [
      {
        name: VAULT,
        uid: "vault-uid",
        entries: [
          entry("notes", { mcpServerUrl: notes.url }),
          entry("mail", { mcpServerUrl: mail.url }),
          entry("git", { repositoryUrl: repository }),
          entry("model", { modelProvider: "anthropic" }),
        ],
      },
    ],
    repositories: [{ name: "app", url: repository, pushBranches: ["agent/**"] }],
  });
}

/** What a session that was talked into it tries in its sandbox; each ends well, whatever it found. */
const thefts = (sidecarPort: number): string[] => {
  // Of the plane's processes alone: others on this machine have secrets of their own.
  const plane = "for p in $(grep -slaE 'DROVER_(POD_UID|WORKER_ID)=' /proc/[0-9]*/environ); do";
  const ask = (path: string) =>
    `(exec 3<>/dev/tcp/127.0.0.1/${sidecarPort} && printf 'POST ${path} HTTP/1.1\\r\\nHost: 127.0.0.1:${sidecarPort}\\r\\nContent-Type: application/json\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}' >&3 && cat <&3)`;
  return [
    "env; export -p; cat /proc/self/environ | tr '\\0' '\\n'",
    `${plane} tr '\\0' '\\n' <$p; tr '\\0' ' ' <\${p%environ}cmdline; done`,
    `${plane} ls -l \${p%environ}fd; cat \${p%environ}maps | head -20; done`,
    ["/tokens", "/mcp/notes", "/mcp/mail", "/model/v1/messages"].map(ask).join("; "),
    "git -C app config --list --show-origin; cat app/.git/config; git -C app remote -v",
    "cd app && GIT_TRACE_CURL=1 GIT_TRACE=1 GIT_TRACE_REDACT=0 GIT_CURL_VERBOSE=1 git fetch 2>&1 | head -200; cd ..",
    "printf 'protocol=http\\nhost=127.0.0.1\\n' | git -C app credential fill 2>&1; cat ~/.git-credentials ~/.netrc 2>&1",
    "ls -laR /run/secrets /var/run/secrets /dev/shm 2>&1 | head -50; cat /run/secrets/*/* 2>&1 | head",
    "find $HOME/../.. /run /etc -maxdepth 4 -iname '*token*' 2>/dev/null | head -20; ls -la $HOME ..",
    "git -C app log -p --all | head -100; git -C app fsck 2>&1",
  ];
};

/** Fifty turns: work with each credential in turn, and a theft between. */
function script(sidecarPort: number): string {
  const attempts = thefts(sidecarPort);
  const bash = (command: string) => ({ name: "bash", input: { command } });
  const turns = Array.from({ length: TURNS - 1 }, (_, index) => {
    const round = Math.floor(index / 5);
    switch (index % 5) {
      case 0:
        return [{ name: "mcp__notes__echo", input: { text: `note ${round}` } }];
      case 1: {
        const branch = round === 0 ? "git switch -qc agent/work && " : "";
        const commit = `echo ${round} >> file && git add . && git commit -qm 'Step ${round}'`;
        return [bash(`(cd app && ${branch}${commit} && git push -q origin HEAD)`)];
      }
      case 2:
        return [{ name: "mcp__mail__echo", input: { text: `mail ${round}` } }];
      case 3:
        return [bash(`(${attempts[round % attempts.length]}) 2>&1 | head -c 20000; true`)];
      default:
        return [bash("(cd app && git pull -q origin agent/work && git status --short)")];
    }
  });
  // JSON is YAML.
  return JSON.stringify({
    scenarios: { work: { turns: [...turns.map((tools) => ({ tools })), { say: "Done." }] } },
  });
}

interface EchoingModel {
  url: string;
  authority: string;
  /** Without their headers. */
  requests: { url: string; body: string }[];
  keys: (string | undefined)[];
  echoed: number;
}

/** A scripted model that demands the session's key, behind a front that gives it back. */
async function startEchoingModel(): Promise<EchoingModel> {
  const inner = createScriptedModel({
    script: parseScripts([{ name: "t01.yaml", text: script(rig.sidecarPort) }]),
    clock: systemClock,
    logger: silentLogger,
    registry: createRegistry("scripted-model", "test"),
    apiKey: new Secret(canary.model),
  });
  const innerUrl = await inner.listen({ host: "127.0.0.1", port: 0 });
  cleanups.add(async () => await inner.close());
  const made: EchoingModel = { url: "", authority: "", requests: [], keys: [], echoed: 0 };
  const front = createServer((request, response) => {
    const key = request.headers["x-api-key"]?.toString();
    made.keys.push(key);
    const seen = { url: request.url ?? "", body: "" };
    made.requests.push(seen);
    request.setEncoding("utf8").on("data", (text: string) => (seen.body += text));
    request.on("end", () => {
      if (made.requests.length % 25 === 5) {
        made.echoed += 1;
        response.writeHead(500, { "content-type": "application/json", "request-id": `${key}` });
        const error = { type: "api_error", message: `no luck with ${key}` };
        response.end(JSON.stringify({ type: "error", error }));
        return;
      }
      const { host: _, ...headers } = request.headers;
      const onward = httpRequest(
        `${innerUrl}${seen.url}`,
        { method: "POST", headers },
        (answer) => {
          response.writeHead(answer.statusCode ?? 502, {
            ...answer.headers,
            "request-id": `${key}`,
          });
          answer.pipe(response);
        },
      );
      onward.on("error", () => response.destroy());
      onward.end(seen.body);
    });
  });
  await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
  cleanups.add(async () => {
    front.closeAllConnections();
    await new Promise((resolve) => front.close(resolve));
  });
  made.authority = `127.0.0.1:${(front.address() as AddressInfo).port}`;
  made.url = `http://${made.authority}`;
  return made;
}
