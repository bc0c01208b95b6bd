import { z } from "zod";

/**
 * The alphabet of the session log (docs/design/session-log.md#event-types). Every entry is
 * `{seq, id, type, epoch, ts, data}`; this file gives `data` for each type. Times are epoch ms.
 *
 * Log order is arrival order. What the model of request r sees is defined by `upto`: every event
 * with seq ≤ r.upto, and nothing else, so the context is a pure fold of the log.
 */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const textBlock = z.object({ type: z.literal("text"), text: z.string() });

/** A block of an assistant message, kept as the Messages API returned it (thinking signatures included). */
const assistantBlock = z.looseObject({ type: z.string() });

const usage = z.object({
  input_tokens: z.int().min(0),
  output_tokens: z.int().min(0),
  cache_creation_input_tokens: z.int().min(0),
  cache_read_input_tokens: z.int().min(0),
});
export type Usage = z.output<typeof usage>;

const TOOL_TARGETS = ["sandbox", "mcp", "custom", "harness"] as const;
/**
 * What may be done after a crash between intent and result (docs/design/session-log.md#tool-calls).
 */
const TOOL_CLASSES = ["read_only", "idempotent", "at_most_once"] as const;
export const TOOL_OUTCOMES = ["known", "unknown", "cancelled", "denied"] as const;

/** Why a session is idle. `end_turn`, `interrupted`: done; the rest needs somebody. */
const IDLE_REASONS = [
  "end_turn",
  "interrupted",
  "requires_action",
  "retries_exhausted",
  "refusal",
] as const;
export type IdleReason = (typeof IDLE_REASONS)[number];

/** Why a session is terminated. */
const TERMINATE_REASONS = ["stop", "deadline"] as const;

const ERROR_TYPES = [
  "unknown_error",
  "model_overloaded_error",
  "model_rate_limited_error",
  "model_request_failed_error",
  "billing_error",
  "mcp_connection_failed_error",
  "mcp_authentication_failed_error",
  "repository_clone_error",
  "compaction_limit_reached_error",
  "quarantined_error",
] as const;

const hand = z.string().min(1).max(63);
const generation = z.int().min(1);

/** One sandbox as the events up to some point tell of it. */
const sandboxFacts = z.object({
  hand,
  generation,
  requestedSeq: z.int().min(1),
  requestedAt: z.int(),
  provisioned: z
    .object({ seq: z.int().min(1), sandboxId: z.string(), address: z.string() })
    .optional(),
  ended: z.object({ seq: z.int().min(1), reason: z.string(), message: z.string() }).optional(),
});

export const sessionEventData = {
  "session.created": z.object({ agent: z.string(), agentRevision: z.string() }),
  "user.message": z.object({ content: z.array(textBlock).min(1) }),
  "user.interrupt": z.object({}),
  "user.tool_confirmation": z.object({
    tool_use_id: z.string(),
    result: z.enum(["allow", "deny"]),
    deny_message: z.string().optional(),
  }),
  "user.custom_tool_result": z.object({
    custom_tool_use_id: z.string(),
    content: z.array(textBlock),
    is_error: z.boolean().optional(),
  }),
  "system.message": z.object({ content: z.array(textBlock).min(1) }),

  "model.request_start": z.object({
    req: z.string(),
    upto: z.int().min(0),
    model: z.string(),
    /** From this request on, results of tools up to `upto` are shown with at most so many characters. */
    result_chars: z.int().min(1).optional(),
  }),
  "model.request_end": z.object({
    req: z.string(),
    message: z.array(assistantBlock),
    stop_reason: z.string(),
    usage,
    /** True when an interrupt cut the answer and only what the user saw is kept. */
    partial: z.boolean().optional(),
  }),
  "model.request_abandoned": z.object({ req: z.string(), reason: z.string() }),

  "tool.intent": z.object({
    /** The model's `tool_use` id. */
    id: z.string(),
    name: z.string(),
    target: z.enum(TOOL_TARGETS),
    hand: hand.optional(),
    input: z.record(z.string(), z.unknown()),
    inputHash: z.string(),
    class: z.enum(TOOL_CLASSES),
    /** `ask`: waits for user.tool_confirmation; `deny`: refused by policy. */
    permission: z.enum(["allow", "ask", "deny"]),
  }),
  /**
   * A call that must not be made twice is about to be sent; durable before it is. Whoever finds it
   * without a result did not send it, and so cannot know what became of it.
   */
  "tool.started": z.object({ id: z.string() }),
  "tool.result": z.object({
    id: z.string(),
    content: z.string(),
    is_error: z.boolean(),
    outcome: z.enum(TOOL_OUTCOMES),
  }),

  "sandbox.requested": z.object({ hand, generation, template: z.string() }),
  "sandbox.provisioned": z.object({
    hand,
    generation,
    /** UID of the pod (of the process, in local mode). */
    sandboxId: z.string(),
    /** host:port of the daemon. */
    address: z.string(),
  }),
  "sandbox.lost": z.object({
    hand,
    generation,
    /** One word: `ImagePullFailed`, `Unschedulable`, `SetupFailed`, `PodDeleted`, … */
    reason: z.string(),
    /** One sentence for the model and for people; may hold the platform's own text. */
    message: z.string(),
  }),
  "sandbox.released": z.object({ hand, generation, reason: z.string() }),

  "session.suspend_requested": z.object({}),
  "session.resume_requested": z.object({}),
  "session.stop_requested": z.object({ reason: z.enum(TERMINATE_REASONS) }),

  "context.compacted": z.object({
    /** Events with from ≤ seq ≤ to are replaced, for the model, by `summary`. */
    from: z.int().min(1),
    to: z.int().min(1),
    summary: z.string(),
    /**
     * The sandboxes as they were after event `to`: all that a worker needs to know of the events up
     * to there. Without it the log is looked through for them.
     */
    sandboxes: z.array(sandboxFacts).optional(),
  }),
  "session.status_idle": z.object({ stop_reason: z.enum(IDLE_REASONS) }),
  "session.terminated": z.object({ reason: z.enum(TERMINATE_REASONS) }),
  "session.error": z.object({
    type: z.enum(ERROR_TYPES),
    message: z.string(),
    retry_status: z.enum(["retrying", "exhausted", "terminal"]),
    /** With `repository_clone_error`. */
    repository_url: z.string().optional(),
  }),
} as const satisfies Record<string, z.ZodType>;

export type SessionEventType = keyof typeof sessionEventData;
export type SessionEventData<T extends SessionEventType> = z.output<(typeof sessionEventData)[T]>;

/** A typed event before it is appended; `id` is allocated by the writer so that previews can name it. */
export type NewSessionEvent = {
  [T in SessionEventType]: { id: string; type: T; data: SessionEventData<T> };
}[SessionEventType];

/** A typed event as read from the log. */
export type SessionEvent = {
  [T in SessionEventType]: {
    id: string;
    type: T;
    data: SessionEventData<T>;
    seq: number;
    epoch: number;
    ts: number;
  };
}[SessionEventType];

/** External types that give a session something to do: appending one wakes it. */
export const WAKING_TYPES: ReadonlySet<string> = new Set<SessionEventType>([
  "user.message",
  "user.interrupt",
  "user.tool_confirmation",
  "user.custom_tool_result",
  "system.message",
  "sandbox.provisioned",
  "sandbox.lost",
  "session.suspend_requested",
  "session.resume_requested",
  "session.stop_requested",
]);

/** Limits of manifests, tools and events (docs/design/session-log.md#limits). */
export const LIMITS = {
  messageTextChars: 32_768,
  toolResultChars: 100_000,
  toolResultBytes: 192 * 1024,
  eventBytes: 256 * 1024,
  batchBytes: 1024 * 1024,
  inlineBytes: 64 * 1024,
} as const;
