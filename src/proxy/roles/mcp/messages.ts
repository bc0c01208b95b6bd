import { z } from "zod";
import { AppError, codeOf } from "../../../runtime/errors.ts";
import { isOutcomeUnknown } from "../../upstream-errors.ts";

/** JSON-RPC 2.0 as MCP uses it: one message a body, ids are strings or integers, params an object. */

const id = z.union([z.string().max(1024), z.int()]);
const params = z.record(z.string(), z.unknown()).optional();
const version = z.literal("2.0");

const request = z.object({ jsonrpc: version, id, method: z.string().max(256), params });
const notification = z.object({
  jsonrpc: version,
  id: z.undefined().optional(),
  method: z.string().max(256),
  params,
});
const response = z
  .object({
    jsonrpc: version,
    id,
    method: z.undefined().optional(),
    result: z.unknown().optional(),
    error: z.unknown().optional(),
  })
  .refine(
    (message) => (message.result === undefined) !== (message.error === undefined),
    "expected a result or an error",
  );

export type RpcId = string | number;
export type Message =
  | { kind: "request"; id: RpcId; method: string; params: Record<string, unknown> | undefined }
  | { kind: "notification"; method: string; params: Record<string, unknown> | undefined }
  | { kind: "response"; id: RpcId; result: unknown };

/** Throws INPUT_INVALID; undefined results (errors) come as a response without result. */
export function readMessage(value: unknown): Message {
  const asRequest = request.safeParse(value);
  if (asRequest.success) {
    const { id: requestId, method, params: given } = asRequest.data;
    return { kind: "request", id: requestId, method, params: given };
  }
  const asNotification = notification.safeParse(value);
  if (asNotification.success) {
    const { method, params: given } = asNotification.data;
    return { kind: "notification", method, params: given };
  }
  const asResponse = response.safeParse(value);
  if (asResponse.success) {
    return { kind: "response", id: asResponse.data.id, result: asResponse.data.result };
  }
  throw new AppError("INPUT_INVALID", "the body is not one JSON-RPC 2.0 message");
}

export const RPC_METHOD_NOT_FOUND = -32_601;
export const RPC_HEADER_MISMATCH = -32_020;
/** Ours, in the range JSON-RPC leaves to servers. */
const RPC_REFUSED = -32_000;

export function rpcError(requestId: RpcId | null, code: number, message: string, data?: unknown) {
  return {
    jsonrpc: "2.0",
    id: requestId,
    error: { code, message, ...(data === undefined ? {} : { data }) },
  };
}

/**
 * Whether a refusal is given as the JSON-RPC answer, so that the model reads it as a tool error it
 * can act on, or as an HTTP status. A tool call whose effect is unknown must not look answered; and
 * a server that does not take the credential while it is being connected to is a plain 403.
 */
export function isRpcAnswer(message: { method: string }, error: AppError): boolean {
  return message.method === "tools/call" ? !isOutcomeUnknown(error) : error.code !== "FORBIDDEN";
}

/** A refusal of ours as the answer to a request; `data.code` is the code of docs/reference/errors. */
export function rpcRefusal(requestId: RpcId, error: AppError, message = error.message) {
  const limit = error.details["limit"];
  return rpcError(requestId, RPC_REFUSED, message, {
    code: codeOf(error),
    retryable: error.retryable,
    ...(limit === undefined ? {} : { limit }),
  });
}
