import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { aSnapshot } from "../builders/snapshot.ts";
import { Cleanups } from "../cleanups.ts";
import { createSeededRng } from "../fakes/seeded-rng.ts";
import { type Received, Rig, startUpstream, TENANT } from "../integration/proxy/rig.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T25: 200 sessions with a credential each use one MCP server through one sidecar at the same time,
 * and clients leave in the middle. The server tells, in each answer, whose credential came with which
 * payload; a session must see its own answers alone (CVE-2026-25536: answers of a shared transport
 * reached another client).
 */
const SESSIONS = 200;
const CALLS = 5;

const cleanups = new Cleanups();
const rng = createSeededRng(Date.now());
const clients = Array.from({ length: SESSIONS }, (_, index) => ({
  id: `sesn_poolab00_${String(index).padStart(26, "0")}`,
  lease: `lease-${index}`,
  token: newMarker("T25"),
}));
type Client = (typeof clients)[number];

interface Answered {
  client: Client;
  nonce: string;
  /** Undefined when the client left before. */
  text: string | undefined;
}

let received: readonly Received[] = [];
let answers: Answered[] = [];

beforeAll(async () => {
  const upstream = await startUpstream(cleanups, (request, response) => {
    const { id, params } = JSON.parse(request.body) as Call;
    // What a server that mixes nothing up says: the caller's own nonce, and whom it took the caller for.
    const text = `nonce=${params.arguments.nonce} owner=${ownerOf(request)}`;
    const result = { jsonrpc: "2.0", id, result: { content: [{ type: "text", text }] } };
    const events = rng.next() < 0.5;
    response.writeHead(200, {
      "content-type": events ? "text/event-stream" : "application/json",
    });
    const body = events ? `data: ${JSON.stringify(result)}\n\n` : JSON.stringify(result);
    const cut = Math.floor(rng.next() * body.length);
    response.write(body.slice(0, cut));
    setTimeout(() => response.end(body.slice(cut)), rng.next() * 30);
  });
  received = upstream.received;
  const rig = await startRig(upstream.url, upstream.authority);
  answers = (await Promise.all(clients.map(async (client) => await useServer(rig, client)))).flat();
}, 60_000);

afterAll(async () => await cleanups.run());

it("the server saw every session's credential, and each only with that session's payload", () => {
  const pairs = received.map((request) => ({
    authorization: request.headers.authorization,
    nonce: (JSON.parse(request.body) as Call).params.arguments.nonce,
  }));

  expect(new Set(pairs.map(({ authorization }) => authorization)).size).toBe(SESSIONS);
  for (const { authorization, nonce } of pairs) {
    const client = clients.find(({ id }) => nonce.startsWith(id));
    expect(authorization).toBe(`Bearer ${client?.token}`);
  }
});

it("each session got its own answers and no other", () => {
  const complete = answers.filter(({ text }) => text !== undefined);

  expect(complete.length).toBeGreaterThan((SESSIONS * CALLS) / 2);
  for (const { client, nonce, text } of complete) {
    expect(text).toContain(`nonce=${nonce} owner=${client.id}`);
    expect(text).not.toContain("CNRY-");
  }
});

it("some clients left in the middle, or this proves nothing about it", () => {
  expect(answers.filter(({ text }) => text === undefined).length).toBeGreaterThan(SESSIONS / 10);
});

interface Call {
  id: number;
  params: { arguments: { nonce: string } };
}

function ownerOf({ headers }: Received): string {
  return clients.find(({ token }) => headers.authorization === `Bearer ${token}`)?.id ?? "nobody";
}

async function startRig(url: string, authority: string): Promise<Rig> {
  const rig = await Rig.start(cleanups, {
    inClusterServers: [authority],
    maxInFlight: SESSIONS * 2,
    secrets: {
      [TENANT]: Object.fromEntries(clients.map(({ id, token }) => [secretOf(id), { token }])),
    },
  });
  const base = aSnapshot();
  for (const { id, lease } of clients) {
    rig.leases.set(id, { token: lease, epoch: 1, owner: "pod-1", terminated: false });
    rig.snapshots.set(id, {
      ...base,
      sessionId: id,
      agent: {
        ...base.agent,
        mcpServers: [{ name: "docs", url }],
        tools: [
          {
            type: "mcp_toolset",
            mcpServerName: "docs",
            defaultConfig: { permissionPolicy: "always_allow" },
          },
        ],
      },
      vaults: [
        {
          name: "main",
          uid: "vault-uid",
          entries: [
            {
              name: "docs",
              mcpServerUrl: url,
              secretRef: { name: secretOf(id), key: "token" },
              header: "Authorization",
              scheme: "Bearer",
            },
          ],
        },
      ],
    });
  }
  return rig;
}

/** A Secret of its own for each session, with the same names of vault and entry around it. */
function secretOf(id: string): string {
  return id.replaceAll("_", "-");
}

async function useServer(rig: Rig, client: Client): Promise<Answered[]> {
  const token = await rig.token(client.id, client.lease);
  const results: Answered[] = [];
  for (let number = 1; number <= CALLS; number += 1) {
    await sleep(rng.next() * 20);
    const nonce = `${client.id}-${number}-${Math.floor(rng.next() * 1e9)}`;
    results.push({ client, nonce, text: await callOnce(rig, token, number, nonce) });
  }
  return results;
}

async function callOnce(
  rig: Rig,
  token: string,
  id: number,
  nonce: string,
): Promise<string | undefined> {
  const leaving = new AbortController();
  const leaves = rng.next() < 0.2;
  if (leaves) setTimeout(() => leaving.abort(), rng.next() * 60);
  try {
    const answer = await fetch(`${rig.url}/mcp/docs`, {
      method: "POST",
      signal: leaving.signal,
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({
        jsonrpc: "2.0",
        // The same ids in all sessions: an answer that went astray would fit.
        id,
        method: "tools/call",
        params: { name: "whoami", arguments: { nonce } },
      }),
    });
    return await answer.text();
  } catch (error) {
    if (leaves) return undefined;
    throw error;
  }
}
