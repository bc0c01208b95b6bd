import { z } from "zod";
import { repositoriesRequest, repositoriesResponse } from "../protocol/sandbox-api.ts";
import { MAX_RESULT_JSON_BYTES } from "./output.ts";

/**
 * What the daemon of a sandbox and its runner say to each other (docs/adr/0011). The runner has the
 * tools, and code of a model runs as its user: what comes from it is foreign input. `call` is a number
 * of the daemon's own, one for each message that is answered.
 *
 *   daemon                              runner
 *   ping                                           it is let in
 *                                       hello          it takes calls from now on
 *   run {id, name, input}         →     tail*          the last that the call has printed
 *                                       result         the call is over
 *   repositories {request, waitMs} →    repositories
 *   cancel {reason}               →     (the call's own answer)
 *   ping                          →     pong
 *
 * Any call may be answered with `error` instead: it could not be done at all.
 */

/** How much of what a call has printed last is told while it runs. */
export const TAIL_BYTES = 8192;

/** An input of 16 MiB, with all of its characters escaped anew. */
export const MAX_TO_RUNNER_BYTES = 40 * 1024 * 1024;
/** A result that is full to the brim, with the notes below it. */
export const MAX_FROM_RUNNER_BYTES = MAX_RESULT_JSON_BYTES + 128 * 1024;

const call = z.int().min(0);

export const toRunner = z.discriminatedUnion("t", [
  z.object({
    t: z.literal("run"),
    call,
    id: z.string(),
    name: z.string(),
    input: z.record(z.string(), z.unknown()),
  }),
  z.object({
    t: z.literal("repositories"),
    call,
    request: repositoriesRequest,
    waitMs: z.number().optional(),
  }),
  z.object({ t: z.literal("cancel"), call, reason: z.string() }),
  z.object({ t: z.literal("ping") }),
]);
export type ToRunner = z.output<typeof toRunner>;

const runResult = z.object({
  content: z.string(),
  is_error: z.boolean(),
  /** It ended because it was told to. */
  aborted: z.boolean(),
  /** Bytes that the tool printed, shown or not. */
  outputBytes: z.int().min(0),
});
export type RunResult = z.output<typeof runResult>;

export const fromRunner = z.discriminatedUnion("t", [
  z.object({ t: z.literal("hello") }),
  z.object({ t: z.literal("tail"), call, tail: z.base64().max(2 * TAIL_BYTES) }),
  z.object({ t: z.literal("result"), call, result: runResult }),
  z.object({ t: z.literal("repositories"), call, response: repositoriesResponse }),
  z.object({ t: z.literal("error"), call, message: z.string().max(4096) }),
  z.object({ t: z.literal("pong") }),
]);
export type FromRunner = z.output<typeof fromRunner>;
