import type { Exchange } from "../../exchange.ts";
import type { ServerCredential } from "../../session-credentials.ts";
import type { Message } from "./messages.ts";
import { isRecord } from "./policy.ts";

/** Says in `_meta` that a message is of the protocol's modern era (docs/design/security.md#mcp). */
const VERSION_META = "io.modelcontextprotocol/protocolVersion";

/**
 * Headers for an MCP server, made from nothing (docs/design/security.md#mcp): protocol, ids already
 * opened, and the credential, if the session has one for it. Nothing else the harness sent leaves
 * the pod.
 */
export function buildMcpHeaders(given: {
  exchange: Exchange;
  message: Message | undefined;
  credential: ServerCredential | undefined;
  sessionId: string | undefined;
  lastEventId: string | undefined;
}): Record<string, string> {
  const { exchange, message, credential } = given;
  const stated = message?.kind === "response" ? undefined : message && versionOf(message);
  const version = stated ?? exchange.header("mcp-protocol-version");
  return {
    accept: exchange.method === "GET" ? "text/event-stream" : "application/json, text/event-stream",
    "accept-encoding": "identity",
    ...(message === undefined ? {} : { "content-type": "application/json" }),
    ...(version !== undefined && /^\d{4}-\d{2}-\d{2}$/.test(version)
      ? { "mcp-protocol-version": version }
      : {}),
    ...(given.sessionId === undefined ? {} : { "mcp-session-id": given.sessionId }),
    ...(given.lastEventId === undefined ? {} : { "last-event-id": given.lastEventId }),
    ...modernHeaders(exchange, message),
    ...credentialHeader(credential),
  };
}

function credentialHeader(credential: ServerCredential | undefined): Record<string, string> {
  if (credential === undefined) return {};
  return { [credential.header]: credential.headerValue.reveal() };
}

/** What the modern era repeats of the body in headers; derived from the body, never copied. */
function modernHeaders(exchange: Exchange, message: Message | undefined): Record<string, string> {
  if (!isModern(message)) return {};
  const name = nameOf(message);
  const headers: Record<string, string> = {
    "mcp-method": message.method,
    ...(name === undefined ? {} : { "mcp-name": encodeFieldValue(name) }),
  };
  // Parameters mirrored by the client; node:http has refused line breaks already.
  for (const [header, value] of Object.entries(exchange.headers)) {
    if (/^mcp-param-[a-z0-9-]{1,128}$/.test(header) && typeof value === "string") {
      if (/^[\x20-\x7e]*$/.test(value)) headers[header] = value;
    }
  }
  return headers;
}

/** Names the header that says something else than the body, or undefined. */
export function headerMismatch(
  exchange: Exchange,
  message: Message | undefined,
): string | undefined {
  if (!isModern(message)) return undefined;
  const version = exchange.header("mcp-protocol-version");
  if (version !== undefined && version !== versionOf(message)) return "MCP-Protocol-Version";
  const method = exchange.header("mcp-method");
  if (method !== undefined && method !== message.method) return "Mcp-Method";
  const name = exchange.header("mcp-name");
  const expected = nameOf(message);
  if (name !== undefined && name !== (expected === undefined ? "" : encodeFieldValue(expected))) {
    return "Mcp-Name";
  }
  return undefined;
}

function isModern(message: Message | undefined): message is Extract<Message, { method: string }> {
  if (message === undefined || message.kind === "response") return false;
  return versionOf(message) !== undefined;
}

/** The protocol's version as the body of a modern message says it. */
function versionOf({ params }: Extract<Message, { method: string }>): string | undefined {
  const meta = params?.["_meta"];
  const version = isRecord(meta) ? meta[VERSION_META] : undefined;
  return typeof version === "string" ? version : undefined;
}

function nameOf(message: Extract<Message, { method: string }>): string | undefined {
  const name = message.params?.["name"];
  return message.method === "tools/call" && typeof name === "string" ? name : undefined;
}

/** The specification's encoding of a value that a header field cannot hold as it is. */
function encodeFieldValue(value: string): string {
  const plain =
    /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/.test(value) && !/^=\?base64\?.*\?=$/.test(value);
  return plain ? value : `=?base64?${Buffer.from(value, "utf8").toString("base64")}?=`;
}
