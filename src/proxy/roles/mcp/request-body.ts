import { AppError } from "../../../runtime/errors.ts";
import type { Use } from "../../audit.ts";
import { jsonHash } from "../../audit-record.ts";
import type { Exchange } from "../../exchange.ts";
import { parseJsonText } from "../../json-text.ts";
import { MAX_JSON_DEPTH, SIZES } from "../../limits.ts";
import {
  type Message,
  RPC_HEADER_MISMATCH,
  RPC_METHOD_NOT_FOUND,
  readMessage,
  rpcError,
} from "./messages.ts";
import { isPassedMethod, isRecord } from "./policy.ts";
import { headerMismatch } from "./request-headers.ts";

/** Throws INPUT_INVALID, INPUT_TOO_LARGE or TIMEOUT. */
export async function readBody(exchange: Exchange): Promise<{ body: unknown; message: Message }> {
  if (!/^application\/json\b/i.test(exchange.header("content-type") ?? "")) {
    throw new AppError("INPUT_INVALID", "content-type must be application/json");
  }
  const body = parseJsonText(await exchange.text(SIZES.mcpRequest), MAX_JSON_DEPTH);
  const message = readMessage(body);
  if (message.kind === "response") return { body, message };
  const { use } = exchange;
  use.method = message.method;
  if (message.method === "tools/call") describeCall(use, message.params ?? {});
  return { body, message };
}

function describeCall(use: Use, params: Record<string, unknown>): void {
  const { name, arguments: args, _meta: meta } = params;
  if (typeof name === "string") use.tool = name.slice(0, 256);
  use.argsSha256 = jsonHash(args);
  const toolUseId = isRecord(meta) ? meta["drover.dev/idempotency-key"] : undefined;
  if (typeof toolUseId === "string") use.toolUseId = toolUseId.slice(0, 128);
}

/** Messages that are answered here and go nowhere. Throws FORBIDDEN for a notification. */
export function refusedMessage(
  exchange: Exchange,
  message: Message,
): { status: number; body: unknown } | undefined {
  const id = message.kind === "request" ? message.id : null;
  const mismatch = headerMismatch(exchange, message);
  if (mismatch !== undefined) {
    const text = `header ${mismatch} says something else than the body`;
    return { status: 400, body: rpcError(id, RPC_HEADER_MISMATCH, text) };
  }
  if (isPassedMethod(message) || message.kind === "response") return undefined;
  const text = `${JSON.stringify(message.method)} is not passed on by the proxy; only tools are`;
  if (message.kind === "notification") throw new AppError("FORBIDDEN", text);
  return { status: 200, body: rpcError(id, RPC_METHOD_NOT_FOUND, text) };
}
