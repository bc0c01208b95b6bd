import { textOf } from "./answer.ts";
import type { RequestOutcome } from "./metrics.ts";
import { joinMessages, type MessagesRequest } from "./request.ts";

/** What tests ask about a request that came in (`GET /requests`). */
export interface RequestRecord {
  /** Number from 1 over all scenarios. */
  n: number;
  /** Epoch ms of arrival. */
  at: number;
  model: string;
  /** Call number within its scenario. */
  call: number;
  /** Number of the script's turn; null when none was found. */
  turn: number | null;
  stream: boolean;
  outcome: RequestOutcome | "open";
  tools: string[];
  messages: MessagesRequest["messages"];
  system: MessagesRequest["system"] | null;
  /** Text of the last user message, tool results included. */
  last: string;
  /** Without credentials: their values are replaced by "[present]". */
  headers: Record<string, string>;
}

const CREDENTIALS = new Set(["authorization", "x-api-key", "cookie", "proxy-authorization"]);
/** Old records go first: this is for tests, not an archive. */
const KEPT = 2000;

export class RequestLog {
  #records: RequestRecord[] = [];
  #count = 0;

  add(
    request: MessagesRequest,
    facts: { at: number; call: number; headers: Record<string, string | string[] | undefined> },
  ): RequestRecord {
    this.#count += 1;
    const record: RequestRecord = {
      n: this.#count,
      at: facts.at,
      model: request.model,
      call: facts.call,
      turn: null,
      stream: request.stream === true,
      outcome: "open",
      tools: (request.tools ?? []).map((tool) => tool.name),
      messages: request.messages,
      system: request.system ?? null,
      last: textOf(joinMessages(request.messages).at(-1)?.content ?? []),
      headers: Object.fromEntries(
        Object.entries(facts.headers).map(([name, value]) => [
          name,
          CREDENTIALS.has(name) ? "[present]" : String(value),
        ]),
      ),
    };
    this.#records.push(record);
    if (this.#records.length > KEPT) this.#records.shift();
    return record;
  }

  list(): readonly RequestRecord[] {
    return this.#records;
  }

  clear(): void {
    this.#records = [];
  }
}
