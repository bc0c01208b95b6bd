import type { ServerResponse } from "node:http";
import type { SessionSnapshot } from "../../../src/protocol/snapshot.ts";
import type { Cleanups } from "../../cleanups.ts";
import { type Received, Rig, type RigOptions, startUpstream, type Upstream } from "./rig.ts";

/** An agent that may call every tool of its one MCP server `docs` but `delete`. */
export const docsTools: NonNullable<SessionSnapshot["agent"]["tools"]> = [
  {
    type: "mcp_toolset",
    mcpServerName: "docs",
    defaultConfig: { permissionPolicy: "always_allow" },
    configs: [{ name: "delete", enabled: false }],
  },
];

/** A vault `main` whose entry `docs` is for this server; its value is in a Secret `docs-token`. */
export function vaultFor(
  mcpServerUrl: string,
  changes: Partial<SessionSnapshot["vaults"][number]["entries"][number]> = {},
): SessionSnapshot["vaults"] {
  const entry = {
    name: "docs",
    mcpServerUrl,
    secretRef: { name: "docs-token", key: "token" },
    header: "Authorization",
    scheme: "Bearer",
    ...changes,
  };
  return [{ name: "main", uid: "vault-uid", entries: [entry] }];
}

/** What the local credentials file holds for `vaultFor`. */
export function secretsWith(token: string) {
  return { "team-a": { "docs-token": { token } } };
}

export function call(tool: string, id: number | string = 1, args: unknown = { text: "hi" }) {
  return { jsonrpc: "2.0", id, method: "tools/call", params: { name: tool, arguments: args } };
}

export function result(id: number | string, text: string) {
  return { jsonrpc: "2.0", id, result: { content: [{ type: "text", text }] } };
}

export function sendJson(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
}

/** A proxy whose session has the MCP server `docs`, played by `handle`, and its credential. */
export async function sessionWithServer(
  cleanups: Cleanups,
  token: string,
  handle: (received: Received, response: ServerResponse) => void = (_received, response) =>
    sendJson(response, result(1, "ok")),
  options: RigOptions = {},
): Promise<{ upstream: Upstream; rig: Rig; url: string }> {
  const upstream = await startUpstream(cleanups, handle);
  const url = `${upstream.url}/mcp`;
  const rig = await Rig.start(cleanups, {
    inClusterServers: [upstream.authority],
    agent: { tools: docsTools, mcpServers: [{ name: "docs", url }] },
    vaults: vaultFor(url),
    secrets: secretsWith(token),
    ...options,
  });
  return { upstream, rig, url };
}
