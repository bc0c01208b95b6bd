import type { Dispatcher } from "undici";
import { withDeadline } from "../../../runtime/abort.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { codeOf, describeError, isAbort } from "../../../runtime/errors.ts";
import type { Logger } from "../../../runtime/logger.ts";
import type { AuditLog, Use } from "../../audit.ts";
import { SERVER_REQUESTS, TIMEOUTS } from "../../limits.ts";
import { unusableAnswer, upstreamError } from "../../upstream-errors.ts";
import { type Message, RPC_METHOD_NOT_FOUND, rpcError } from "./messages.ts";

export type ServerRequest = Extract<Message, { kind: "request" }>;

export interface ServerRefusalsDeps {
  /** For messages: `MCP server "docs"`. */
  what: string;
  /** Posts a message to the server; the caller reads the answer to its end. */
  send: (text: string, signal: AbortSignal) => Promise<Dispatcher.ResponseData>;
  /** Of the stream in which the server asks. */
  use: Use;
  until: AbortSignal;
  audit: Pick<AuditLog, "check" | "record">;
  /** Called for every request of a server that is refused. */
  onRefusal: () => void;
  clock: Clock;
  logger: Logger;
}

/**
 * Answers the requests that a server makes in one stream (sampling, roots …) with refusals, which go
 * out with the credential, if there is one: so one at a time, few in all, and each with an audit record of its own.
 */
export class ServerRefusals {
  readonly #deps: ServerRefusalsDeps;
  #count = 0;
  #isOver = false;
  #told: Promise<void> = Promise.resolve();

  constructor(deps: ServerRefusalsDeps) {
    this.#deps = deps;
  }

  /** Does not wait until the server is told. Throws UPSTREAM_REFUSED when it has asked too often. */
  refuse(request: ServerRequest): void {
    this.#count += 1;
    this.#deps.onRefusal();
    if (this.#count > SERVER_REQUESTS) {
      this.#isOver = true;
      throw unusableAnswer(
        `${this.#deps.what} made more than ${SERVER_REQUESTS} requests of its own in one stream, ` +
          "which are all refused",
        { limit: SERVER_REQUESTS },
      );
    }
    this.#told = this.#told.then(async () => await this.#tell(request));
  }

  /** Resolves when the stream has ended and the server was told; a stream that fails tells no more. */
  async during(stream: () => Promise<void>): Promise<void> {
    try {
      await stream();
    } catch (error) {
      this.#isOver = true;
      throw error;
    }
    await this.#told;
  }

  async #tell({ id, method }: ServerRequest): Promise<void> {
    const { what, send, use, until, audit, clock, logger } = this.#deps;
    if (this.#isOver || until.aborted) return;
    const text = JSON.stringify(
      rpcError(id, RPC_METHOD_NOT_FOUND, "the proxy takes no such request"),
    );
    const own = useOf(use, method);
    const started = clock.monotonic();
    try {
      audit.check({ hasEffect: false });
      own.allowedBy = "refusal";
      await withDeadline(
        clock,
        TIMEOUTS.headersMs,
        `telling ${what} of a refusal`,
        async (signal) => {
          const answer = await send(text, signal);
          own.upstreamStatus = answer.statusCode;
          await answer.body.dump({ limit: MAX_ANSWER, signal });
        },
        until,
      );
    } catch (error) {
      const problem = upstreamError(what, error);
      own.error = isAbort(problem) ? "ABORTED" : (codeOf(problem) ?? "INTERNAL");
      logger.debug({ err: describeError(problem) }, "refusal did not reach MCP server");
    }
    const bytesOut = own.upstreamStatus === undefined ? 0 : text.length;
    audit.record({ ...own, role: "mcp", bytesIn: 0, bytesOut, ms: clock.monotonic() - started });
  }
}

function useOf(stream: Use, method: string): Use {
  const own: Use = { ...stream, method: knownMethod(method), redactions: 0 };
  for (const field of OF_THE_CALL) delete own[field];
  return own;
}

/** What the harness's own request said or brought. */
const OF_THE_CALL = [
  "tool",
  "toolUseId",
  "argsSha256",
  "allowedBy",
  "error",
  "upstreamStatus",
] as const;

/** Bytes of what a server says to a refusal; nobody reads them. */
const MAX_ANSWER = 65_536;
const METHODS = new Set(["sampling/createMessage", "roots/list", "elicitation/create"]);

/** A server could write anything into the audit log. */
function knownMethod(method: string): string {
  return METHODS.has(method) ? method : "unknown";
}
