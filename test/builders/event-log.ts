import type {
  SessionEvent,
  SessionEventData,
  SessionEventType,
} from "../../src/protocol/session-event.ts";

// Zero: whoever looks at sizes estimates them.
const usage = {
  input_tokens: 0,
  output_tokens: 0,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
};

/** A log in memory, event by event; ids and times follow from the seq. */
export class EventLog {
  readonly events: SessionEvent[] = [];
  #requests = 0;

  get seq(): number {
    return this.events.length;
  }

  add<T extends SessionEventType>(type: T, data: SessionEventData<T>): this {
    const seq = this.events.length + 1;
    const event = { id: `sevt_${seq}`, type, data, seq, epoch: 1, ts: 1_700_000_000_000 + seq };
    this.events.push(event as SessionEvent);
    return this;
  }

  say(...texts: string[]): this {
    return this.add("user.message", { content: texts.map((text) => ({ type: "text", text })) });
  }

  /** Starts a request that sees everything so far. */
  ask(upto = this.seq): this {
    this.#requests += 1;
    return this.add("model.request_start", { req: `req_${this.#requests}`, upto, model: "m" });
  }

  answer(
    content: SessionEventData<"model.request_end">["message"] | string,
    more: Partial<SessionEventData<"model.request_end">> = {},
  ): this {
    const message = typeof content === "string" ? [{ type: "text", text: content }] : content;
    const req = `req_${this.#requests}`;
    return this.add("model.request_end", { req, message, stop_reason: "end_turn", usage, ...more });
  }

  abandon(): this {
    return this.add("model.request_abandoned", { req: `req_${this.#requests}`, reason: "x" });
  }

  /** An answer that calls tools by these ids, with their intents. */
  call(
    ids: string[],
    more: Partial<SessionEventData<"tool.intent">> = {},
    stopReason = "tool_use",
  ): this {
    const blocks = ids.map((id) => ({ type: "tool_use", id, name: "bash", input: {} }));
    this.answer(blocks, { stop_reason: stopReason });
    for (const id of ids) {
      this.add("tool.intent", {
        id,
        name: "bash",
        target: "sandbox",
        hand: "sandbox",
        input: {},
        inputHash: "",
        class: "idempotent",
        permission: "allow",
        ...more,
      });
    }
    return this;
  }

  result(id: string, content = "ok", more: Partial<SessionEventData<"tool.result">> = {}): this {
    return this.add("tool.result", { id, content, is_error: false, outcome: "known", ...more });
  }

  idle(reason: SessionEventData<"session.status_idle">["stop_reason"] = "end_turn"): this {
    return this.add("session.status_idle", { stop_reason: reason });
  }
}
