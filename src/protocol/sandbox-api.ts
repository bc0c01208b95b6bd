import { createHash } from "node:crypto";
import { z } from "zod";
import { sessionRepository } from "../api/agent-session.ts";
import { canonicalJson } from "./snapshot.ts";

/**
 * The sandbox daemon's HTTP API (docs/design/session-log.md#tool-calls,
 * docs/design/sandbox-pod.md). Every call carries
 * `Authorization: Bearer <execute token>`; the first valid token binds the daemon to one
 * (session, hand, generation) for ever.
 *
 *   GET  /healthz                          200 once tool calls are taken (no token)
 *   POST /v1/execute?waitMs=               ExecuteRequest → ExecuteResponse when the call is over, or
 *                                          after waitMs (default: no limit) with state `started`
 *   GET  /v1/execute/{id}?waitMs=          ExecuteResponse; 404 when the daemon never saw the id
 *   POST /v1/execute/{id}/cancel           ExecuteResponse of the cancelled (or finished) call; an id
 *                                          not seen yet is recorded as cancelled and never runs
 *   POST /v1/ack {ids}                     results the log holds; the journal may forget them
 *   PUT  /v1/repositories?waitMs=          RepositoriesRequest → RepositoriesResponse: how git reaches its
 *                                          hosts from now on; clones what is not there yet. Answers when
 *                                          all are settled, or after waitMs with some `cloning`
 *   GET  /v1/tools                         ToolsResponse (sandbox-tools.ts)
 *   GET  /metrics                          Prometheus text (no token)
 *
 * A dropped connection cancels nothing. A repeated id joins the running call or returns the recorded
 * result; with another input it is 409 SANDBOX_INPUT_CHANGED. An epoch below the highest seen is 409
 * SANDBOX_STALE_EPOCH for an id not yet known, and for cancel and ack. Another session's token is 403
 * SANDBOX_BOUND. To execute an acknowledged id again is 409 OUTCOME_UNKNOWN: its result is in the log.
 */

export const executeRequest = z.object({
  /** The model's tool_use id. */
  id: z.string().min(1).max(256),
  name: z.string().min(1).max(128),
  input: z.record(z.string(), z.unknown()),
  /** `inputHash(name, input)`. */
  inputHash: z.string().length(64),
  epoch: z.int().min(1),
});
export type ExecuteRequest = z.output<typeof executeRequest>;

export const executeResponse = z.object({
  id: z.string(),
  state: z.enum(["started", "done"]),
  /** Present when done. */
  result: z
    .object({
      content: z.string(),
      is_error: z.boolean(),
      /** `unknown`: it started and the daemon cannot say how it ended. */
      outcome: z.enum(["known", "unknown", "cancelled"]),
    })
    .optional(),
});
export type ExecuteResponse = z.output<typeof executeResponse>;
export type ExecuteResult = NonNullable<ExecuteResponse["result"]>;

export const ackRequest = z.object({ ids: z.array(z.string()).max(1000) });

/**
 * Given by each worker before its first call to a sandbox, and again before the token runs out. A
 * folder that is there is left alone, so asking again clones only what failed before. Git in the
 * sandbox goes on to use each repository's own URL.
 */
export const repositoriesRequest = z.object({
  /** `http://<address>:<port>` of the edge, an IP address: a sandbox resolves no names. */
  edgeUrl: z.string().regex(/^https?:\/\/(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?$/),
  sandboxToken: z
    .string()
    .regex(/^[\w.-]+$/)
    .max(4096),
  /** Those of the session. `name` is part of the path at the edge, `/git/<name>`; `path` is always set. */
  repositories: z
    .array(
      sessionRepository
        .pick({ name: true, url: true, branch: true })
        .extend({ path: sessionRepository.shape.path.unwrap() }),
    )
    .max(16),
});
export type RepositoriesRequest = z.output<typeof repositoriesRequest>;

export const repositoriesResponse = z.object({
  repositories: z.array(
    z.object({
      name: z.string(),
      /** `cloning`: ask again with the same request to hear how it ends. */
      state: z.enum(["ready", "failed", "cloning"]),
      /** Why it failed: the end of git's own words. */
      message: z.string().optional(),
    }),
  ),
});
export type RepositoriesResponse = z.output<typeof repositoriesResponse>;

/** Names of the tools every sandbox image answers to; schemas are the SDK's agent tool set's. */
export const SANDBOX_TOOLS = ["bash", "read", "write", "edit", "glob", "grep"] as const;

/** Environment of the daemon and its runner; plain values only, none is secret. */
export const SANDBOX_ENV = {
  publicKeys: "DROVER_PUBLIC_KEYS",
  sandboxId: "DROVER_SANDBOX_ID",
  port: "DROVER_SANDBOX_PORT",
  host: "DROVER_SANDBOX_HOST",
  workspace: "DROVER_WORKSPACE",
  journal: "DROVER_JOURNAL_DIR",
  /** Where the daemon listens for its runner, and the runner connects to it. */
  runnerSocket: "DROVER_RUNNER_SOCKET",
  runnerDir: "DROVER_RUNNER_DIR",
  examples: "DROVER_EXAMPLES_DIR",
  /** "true": end when standard input ends, so that the daemon never outlives its parent (local mode). */
  parentPipe: "DROVER_PARENT_PIPE",
} as const;

export function inputHash(name: string, input: unknown): string {
  return createHash("sha256")
    .update(canonicalJson([name, input]))
    .digest("hex");
}
