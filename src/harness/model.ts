import type { Usage } from "../protocol/session-event.ts";
import { AppError, type ErrorCode } from "../runtime/errors.ts";

/** A block of a message, as the Messages API has it; `type` says which. */
export interface Block {
  type: string;
  text?: unknown;
  [field: string]: unknown;
}

export interface ModelMessage {
  role: "user" | "assistant";
  content: Block[];
}

export interface ModelTool {
  name: string;
  description: string;
  input_schema: { type: "object"; [field: string]: unknown };
}

export interface ModelRequest {
  model: string;
  maxTokens: number;
  system: string | undefined;
  tools: readonly ModelTool[];
  messages: readonly ModelMessage[];
}

/** Why a call of the model cannot be made as it came: a limit fell inside it, or its input is none. */
export type CallFault = "cut" | "unreadable" | "too_large";

export interface ModelAnswer {
  content: Block[];
  stopReason: string;
  /** Calls in `content` that cannot be made, by their place there; their `input` is empty. */
  faults: ReadonlyMap<number, CallFault>;
  usage: Usage;
}

export interface ModelCall {
  /** Proves to the sidecar for which session, and under which lease, the request is. */
  sessionToken: string;
  /** Text as it comes; what has been passed here is what a user may have seen. */
  onText: (text: string) => void;
  signal: AbortSignal;
}

/** The model. Rejects with ModelError, or with the signal's reason when it aborts. */
export interface Model {
  stream(request: ModelRequest, call: ModelCall): Promise<ModelAnswer>;
}

export const MODEL_ERROR_KINDS = [
  "rate_limited",
  "overloaded",
  "server_error",
  "timeout",
  "connection",
  "malformed",
  "unauthorized",
  "billing",
  "too_long",
  "refused",
] as const;
export type ModelErrorKind = (typeof MODEL_ERROR_KINDS)[number];

const CODES: Record<ModelErrorKind, ErrorCode> = {
  rate_limited: "UNAVAILABLE",
  overloaded: "UNAVAILABLE",
  server_error: "UNAVAILABLE",
  timeout: "TIMEOUT",
  connection: "UNAVAILABLE",
  malformed: "UPSTREAM_REFUSED",
  unauthorized: "UNAUTHENTICATED",
  billing: "UPSTREAM_REFUSED",
  too_long: "UPSTREAM_REFUSED",
  refused: "UPSTREAM_REFUSED",
};

/** Why a request failed, by what can be done about it. */
export class ModelError extends AppError {
  readonly kind: ModelErrorKind;
  /** The server's wish, in ms. */
  readonly retryAfterMs: number | undefined;

  constructor(kind: ModelErrorKind, message: string, retryAfterMs?: number) {
    super(CODES[kind], message);
    this.name = "ModelError";
    this.kind = kind;
    this.retryAfterMs = retryAfterMs;
  }
}

export function isModelError(error: unknown): error is ModelError {
  return typeof error === "object" && error !== null && "kind" in error && "retryAfterMs" in error;
}
