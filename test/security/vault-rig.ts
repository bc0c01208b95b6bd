import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type {
  CredentialRequest,
  CredentialSource,
} from "../../src/credentials/credential-source.ts";
import { vaultSettings } from "../../src/credentials/vault/config.ts";
import type { VaultTokenPort } from "../../src/credentials/vault/session-reader.ts";
import { openVault } from "../../src/credentials/vault/vault-access.ts";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { generateSigningKey } from "../../src/protocol/tokens.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { loadConfig } from "../../src/runtime/config.ts";
import { Secret } from "../../src/runtime/secret.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import type { Cleanups } from "../cleanups.ts";
import { POD, type Received, Rig, startUpstream, TENANT } from "../integration/proxy/rig.ts";
import { FaultProxy } from "../servers/fault-proxy.ts";
import { startVault, type VaultServer } from "../servers/vault-server.ts";

/**
 * Sessions whose credential for an MCP server is in a real Vault, as far as a sidecar sees them: the
 * proxy with the issuer behind it, the server that records what it gets, and a network between proxy
 * and vault that can fail.
 */
export interface VaultRig {
  vault: VaultServer;
  network: FaultProxy;
  /** What the server got. */
  received: readonly Received[];
  rig: Rig;
  /** What the proxy reads from. */
  source: CredentialSource;
  /** The issuer, asked as the proxy's pod. */
  tokens: VaultTokenPort;
  /** A session that has asked for nothing yet, so that nothing is held for it. */
  newSession(): VaultSession;
}

export interface VaultSession {
  id: string;
  /** Who asks, as the proxy knows it. */
  identity(): Promise<CredentialRequest["session"]>;
  /** Calls the tool, once. */
  call(): Promise<ToolAnswer>;
  /** Calls it until it is answered well, for some seconds: for what comes back by itself. */
  callUntilServed(): Promise<ToolAnswer>;
}

/** The JSON-RPC message that the harness gets. */
const toolAnswer = z.object({
  result: z.unknown().optional(),
  error: z
    .object({
      message: z.string(),
      data: z.object({ code: z.string(), retryable: z.boolean() }),
    })
    .optional(),
});
type ToolAnswer = z.output<typeof toolAnswer>;

/** Where the value of every session's entry is, below the folder of its vault. */
export const ENTRY = { name: "docs", vaultRef: { path: "docs", key: "token" } };
export const VAULT = "main";

/** `ca` is what the proxy trusts; by default it reaches the vault over the failing network. */
export async function startVaultRig(
  cleanups: Cleanups,
  options: { marker: string; ca?: (vault: VaultServer) => string },
): Promise<VaultRig> {
  const key = await generateSigningKey("key-1");
  const vault = await startVault();
  cleanups.add(async () => await vault.stop());
  await vault.setUpSessions({ keys: [key.publicJwk] });
  await vault.put(`t/${TENANT}/v/${VAULT}/docs`, { token: options.marker });
  const front = createSelfSignedCertificate("localhost", systemClock.now());
  const ca = Buffer.from(vault.caPem);
  const network = await FaultProxy.start({ url: vault.address, ca, front });
  cleanups.add(async () => await network.close());
  const upstream = await startUpstream(cleanups, (_received, response) => {
    const result = { content: [{ type: "text", text: "served" }] };
    response
      .writeHead(200, { "content-type": "application/json" })
      .end(JSON.stringify({ jsonrpc: "2.0", id: 1, result }));
  });
  let parts: { tokens: VaultTokenPort; source: CredentialSource } | undefined;
  const env =
    options.ca === undefined
      ? { DROVER_VAULT_ADDRESS: network.url, DROVER_VAULT_CA: front.cert }
      : { DROVER_VAULT_ADDRESS: vault.address, DROVER_VAULT_CA: options.ca(vault) };
  const rig = await Rig.start(cleanups, {
    key,
    inClusterServers: [upstream.authority],
    credentials: (tokens) => {
      const settings = loadConfig(z.object(vaultSettings), env);
      const opened = openVault(settings, { tokens, clock: systemClock });
      if (opened === undefined) throw new Error("no vault");
      cleanups.add(async () => await opened.close());
      parts = { tokens, source: opened.source };
      return opened.source;
    },
  });
  if (parts === undefined) throw new Error("the rig asked for no credentials");
  let sessions = 0;
  return {
    vault,
    network,
    received: upstream.received,
    rig,
    ...parts,
    newSession: () => newSession(rig, `${upstream.url}/mcp`, (sessions += 1)),
  };
}

function newSession(rig: Rig, url: string, number: number): VaultSession {
  const id = `sesn_poolab00_${String(number).padStart(26, "0")}`;
  const lease = `lease-${id}`;
  const { agent } = aSnapshot();
  const entry = { ...ENTRY, mcpServerUrl: url, header: "Authorization", scheme: "Bearer" };
  const permissionPolicy = "always_allow" as const;
  rig.leases.set(id, { token: lease, epoch: 1, owner: POD, terminated: false });
  rig.snapshots.set(
    id,
    aSnapshot({
      sessionId: id,
      agent: {
        ...agent,
        mcpServers: [{ name: "docs", url }],
        tools: [
          {
            type: "mcp_toolset",
            mcpServerName: "docs",
            defaultConfig: { permissionPolicy },
            configs: [],
          },
        ],
      },
      vaults: [{ name: VAULT, uid: "vault-uid", entries: [entry] }],
    }),
  );
  const params = { name: "echo", arguments: {} };
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
  const call = async () => {
    const authorization = `Bearer ${await rig.token(id, lease)}`;
    const answer = await rig.post("/mcp/docs", message, { authorization });
    return toolAnswer.parse(await answer.json());
  };
  return {
    id,
    identity: async () => ({ id, token: new Secret(await rig.token(id, lease)) }),
    call,
    callUntilServed: async () => {
      const deadline = Date.now() + 5000;
      let answer = await call();
      while (answer.error !== undefined && Date.now() < deadline) {
        await sleep(50);
        answer = await call();
      }
      return answer;
    },
  };
}
