import { AppError } from "../../../runtime/errors.ts";
import { parseJsonText } from "../../json-text.ts";
import { MAX_JSON_DEPTH } from "../../limits.ts";
import type { Redactor } from "../../redaction.ts";
import { unusableAnswer } from "../../upstream-errors.ts";
import { type Message, readMessage, rpcRefusal } from "./messages.ts";
import { isPassedServerRequest, isRecord } from "./policy.ts";
import type { ServerRequest } from "./server-refusals.ts";

export interface AnswerRelayDeps {
  what: string;
  /** The result of `tools/list` with those tools only that the session may see. */
  visibleTools: (result: unknown) => Promise<unknown>;
  redactor: Redactor;
  /** The request that is being answered; undefined on a listening stream. */
  request: Extract<Message, { kind: "request" }> | undefined;
  /** Refuses a request that the server made. Throws UPSTREAM_REFUSED to end the stream. */
  refuse: (asked: ServerRequest) => void;
}

/**
 * Reads each message of a server and says what the harness gets of it: the one answer to its own
 * request (tools it may not use left out), notifications, and pings; never a second answer, another
 * request's answer, or a request to sample, list roots or ask the user.
 */
export class AnswerRelay {
  readonly #deps: AnswerRelayDeps;
  #answered = false;
  #failed = false;
  #resumable = false;

  constructor(deps: AnswerRelayDeps) {
    this.#deps = deps;
  }

  /** The answer was an error: the server's own, or the word that none will come. */
  get failed(): boolean {
    return this.#failed;
  }

  /** The body of a JSON answer; it must be the answer to the request. Throws UPSTREAM_REFUSED. */
  async json(text: string): Promise<string> {
    const { value, message } = this.#read(text);
    if (message.kind !== "response" || message.id !== this.#deps.request?.id) {
      throw this.#odd("something else than the answer to the request");
    }
    return await this.#answer(value);
  }

  /** The data of an event as it is passed on; undefined to drop it. Throws UPSTREAM_REFUSED. */
  async event(text: string): Promise<string | undefined> {
    const { value, message } = this.#read(text);
    switch (message.kind) {
      case "notification":
        return this.#clean(value);
      case "request":
        if (isPassedServerRequest(message.method)) return this.#clean(value);
        this.#deps.refuse(message);
        return undefined;
      case "response":
        if (this.#answered || message.id !== this.#deps.request?.id) return undefined;
        this.#answered = true;
        return await this.#answer(value);
    }
  }

  /** An event had an id: the client may come back for what follows it. */
  markResumable(): void {
    this.#resumable = true;
  }

  /** At the end of a stream: what is wrong when the request was never answered in it. */
  missingAnswer(): AppError | undefined {
    return this.#owesAnswer() && !this.#resumable
      ? unusableAnswer(`${this.#deps.what} ended its answer before it was complete`)
      : undefined;
  }

  /**
   * The answer the harness gets in place of one that will not come, or undefined when it waits for
   * none or may resume. It says that the call may have had its effect: the server had begun to answer.
   */
  lastWord(problem: AppError): string | undefined {
    const { request } = this.#deps;
    if (request === undefined || !this.#owesAnswer()) return undefined;
    if (this.#resumable && problem.code !== "UPSTREAM_REFUSED") return undefined;
    this.#answered = true;
    this.#failed = true;
    const message = `${problem.message}; whether the call had an effect is not known`;
    return JSON.stringify(rpcRefusal(request.id, problem, message));
  }

  #owesAnswer(): boolean {
    return this.#deps.request !== undefined && !this.#answered;
  }

  #read(text: string): { value: unknown; message: Message } {
    try {
      const value = parseJsonText(text, MAX_JSON_DEPTH);
      return { value, message: readMessage(value) };
    } catch (error) {
      const isDear = error instanceof AppError && error.details["limit"] !== undefined;
      throw this.#odd(
        isDear
          ? `a message that is too large: ${error.message}`
          : "something that is not one JSON-RPC message",
      );
    }
  }

  async #answer(value: unknown): Promise<string> {
    const { request, visibleTools } = this.#deps;
    this.#failed = isRecord(value) && value["error"] !== undefined;
    const listed = request?.method === "tools/list" && isRecord(value) && "result" in value;
    return this.#clean(listed ? { ...value, result: await visibleTools(value["result"]) } : value);
  }

  #clean(value: unknown): string {
    return JSON.stringify(this.#deps.redactor.json(value));
  }

  #odd(how: string): AppError {
    return unusableAnswer(`${this.#deps.what} answered with ${how}`);
  }
}
