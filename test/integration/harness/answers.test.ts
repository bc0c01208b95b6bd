import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type { SessionEvent } from "../../../src/protocol/session-event.ts";
import {
  answerEvents,
  type EndpointCall,
  MessagesEndpoint,
  type Spoken,
} from "../../fakes/messages-endpoint.ts";
import { eventsOf, HarnessBed } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

let rig: HarnessBed;
let endpoint: MessagesEndpoint | undefined;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start("scenarios: { none: { turns: [{ say: x }] } }");
});

afterEach(async () => {
  await rig.stop();
  await endpoint?.close();
});

/** A session whose model answers like this, when it is idle. */
async function played(
  answer: (call: EndpointCall) => void,
  agent: { contextWindowTokens?: number; maxOutputTokens?: number } = {},
): Promise<{ events: SessionEvent[]; requests: string[]; file: (name: string) => string }> {
  endpoint = new MessagesEndpoint(answer);
  rig.modelUrl = await endpoint.listen();
  rig.startWorker({ modelTimeouts: { firstByteMs: 3000, stallMs: 3000 } });
  const ref = await rig.createSession("go", { model: "m", ...agent });
  const events = await rig.idle(ref);
  expectInvariants(events, []);
  return { events, requests: endpoint.requests, file: (name) => rig.file(ref, name) };
}

function reasonOf(events: SessionEvent[]): string | undefined {
  return eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason;
}

const text = (said: string): Spoken => ({ type: "text", text: said });
const bash = (id: string, command: string): Spoken => ({
  type: "tool_use",
  id,
  name: "bash",
  json: JSON.stringify({ command }),
});
const done = ({ say, response }: EndpointCall) => {
  say(answerEvents([text("Done.")], "end_turn"));
  response.end();
};

describe("an answer that comes whole although a stream was asked for", () => {
  const whole = ({ response }: EndpointCall, body: object) =>
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  const message = (content: object[], stop: string | null) => ({
    type: "message",
    content,
    stop_reason: stop,
    usage: { input_tokens: 3, output_tokens: 2 },
  });

  it("is taken like any other, calls too", async () => {
    const call = { type: "tool_use", id: "t", name: "bash", input: { command: "echo ran" } };
    let asked = 0;
    const { events } = await played((request) => {
      asked += 1;
      whole(request, message(asked === 1 ? [call] : [{ type: "text", text: "Done." }], null));
    });

    expect(eventsOf(events, "tool.result").map(({ data }) => data.content)).toEqual([
      expect.stringContaining("ran"),
    ]);
    expect(reasonOf(events)).toBe("end_turn");
  });

  it("and is an error counts as that error", async () => {
    let asked = 0;
    const { events } = await played((request) => {
      asked += 1;
      const error = { type: "error", error: { type: "overloaded_error", message: "busy" } };
      if (asked < 4) whole(request, error);
      else done(request);
    });

    expect(eventsOf(events, "session.error").map(({ data }) => data.type)).toEqual(
      expect.arrayContaining(["model_overloaded_error"]),
    );
    expect(reasonOf(events)).toBe("end_turn");
  }, 60_000);

  it("and is no message says so", async () => {
    const { events } = await played((request) => whole(request, { hello: "world" }));

    expect(eventsOf(events, "session.error").at(-1)?.data.message).toContain(
      "neither a stream nor a message",
    );
  }, 60_000);
});

describe("an answer ends with message_stop", () => {
  it.each<[string, (call: EndpointCall) => void]>([
    ["a line that is no JSON", ({ response }) => response.end("data: [DONE]\n\n")],
    ["a reset", ({ response }) => setTimeout(() => response.socket?.resetAndDestroy(), 50)],
    ["a connection that stays open", () => {}],
    ["rubbish", ({ response }) => response.end("\u0000\u0001{{{\n\nevent: error\ndata: {}\n\n")],
  ])("and after it %s changes nothing", async (_what, after) => {
    const { events, requests } = await played((call) => {
      call.say(answerEvents([text("Whole.")], "end_turn"));
      after(call);
    });

    expect(requests).toHaveLength(1);
    expect(reasonOf(events)).toBe("end_turn");
    expect(eventsOf(events, "session.error")).toEqual([]);
  });

  it.each([undefined, null, { input_tokens: null }])(
    "and needs no counts: usage %j",
    async (usage) => {
      const { events, requests } = await played(({ say, response }) => {
        say(answerEvents([text("Whole.")], "end_turn", usage));
        response.end();
      });

      expect(requests).toHaveLength(1);
      expect(reasonOf(events)).toBe("end_turn");
    },
  );

  it("and its events are known by their data, whatever their line says", async () => {
    const { events, requests } = await played(({ response }) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (const event of answerEvents([text("Whole.")], "end_turn")) {
        response.write(`event: error\ndata: ${JSON.stringify(event)}\n\n`);
      }
      response.end();
    });

    expect(requests).toHaveLength(1);
    expect(reasonOf(events)).toBe("end_turn");
  });
});

describe("an answer that was cut", () => {
  it.each(["max_tokens", "model_context_window_exceeded"])(
    "inside a text by %s is continued",
    async (reason) => {
      const { events, requests } = await played((call) => {
        if (call.n > 1) return done(call);
        call.say(answerEvents([text("The three reasons are: first, that")], reason));
        call.response.end();
      });

      expect(requests).toHaveLength(2);
      expect(requests[1]).toContain("Go on exactly where it stopped");
      expect(reasonOf(events)).toBe("end_turn");
    },
  );

  it("each time, ends the turn as failed and says why", async () => {
    const { events, requests } = await played(({ say, response }) => {
      say(answerEvents([text("Again.")], "max_tokens"));
      response.end();
    });

    expect(requests).toHaveLength(6);
    expect(eventsOf(events, "session.error").map(({ data }) => data)).toEqual([
      expect.objectContaining({
        message: expect.stringMatching(/cut off 6 times in a row.*Raise maxOutputTokens/),
        retry_status: "exhausted",
      }),
    ]);
    expect(reasonOf(events)).toBe("retries_exhausted");
  });

  it.each(["max_tokens", "model_context_window_exceeded"])(
    "inside a call by %s runs the whole calls beside it, and tells the model of the other",
    async (reason) => {
      const { events, requests, file } = await played((call) => {
        if (call.n > 1) return done(call);
        const cut = { type: "tool_use", id: "toolu_b", name: "write", json: '{"file_path": "x' };
        call.say(answerEvents([bash("toolu_a", "echo whole > a.txt"), cut], reason));
        call.response.end();
      });

      expect(file("a.txt")).toBe("whole\n");
      expect(requests[1]).toMatch(/"tool_use_id":"toolu_b","content":"This call was cut off/);
      expect(reasonOf(events)).toBe("end_turn");
    },
  );

  it("inside its only call tells the model, which goes on", async () => {
    const { events, requests } = await played((call) => {
      if (call.n > 1) return done(call);
      const cut = { type: "tool_use", id: "toolu_b", name: "write", json: '{"file_path": "x' };
      call.say(answerEvents([cut], "max_tokens"));
      call.response.end();
    });

    expect(requests).toHaveLength(2);
    expect(requests[1]).toContain("Make it smaller");
    expect(reasonOf(events)).toBe("end_turn");
  });
});

describe("an answer", () => {
  it("that refuses runs nothing, although it holds a call", async () => {
    const { events } = await played((call) => {
      call.say(answerEvents([text("No."), bash("toolu_a", "echo ran > a.txt")], "refusal"));
      call.response.end();
    });

    expect(eventsOf(events, "tool.intent")).toEqual([]);
    expect(reasonOf(events)).toBe("refusal");
  });

  it("that pauses its turn is asked to go on", async () => {
    const { events, requests } = await played((call) => {
      if (call.n > 1) return done(call);
      call.say(answerEvents([text("Looking.")], "pause_turn"));
      call.response.end();
    });

    expect(requests).toHaveLength(2);
    expect(reasonOf(events)).toBe("end_turn");
  });

  it("with one id for two calls, and for a third later, runs each once with its own result", async () => {
    const { events, requests, file } = await played((call) => {
      const { n, say, response } = call;
      if (n > 2) return done(call);
      const command = (word: string) => bash("call_0", `echo ${word} >> log.txt; echo out-${word}`);
      say(
        answerEvents(n === 1 ? [command("one"), command("two")] : [command("three")], "tool_use"),
      );
      response.end();
    });

    expect(file("log.txt")).toBe("one\ntwo\nthree\n");
    expect(eventsOf(events, "tool.result").map(({ data }) => data.content.trim())).toEqual([
      "out-one",
      "out-two",
      "out-three",
    ]);
    const history = JSON.parse(requests[2] ?? "") as { messages: { content: Spoken[] }[] };
    const ids = history.messages.flatMap(({ content }) =>
      content.flatMap((block) => (block.type === "tool_use" ? [block.id] : [])),
    );
    expect(new Set(ids).size).toBe(3);
  });

  it("comes back to the model with the digits it wrote", async () => {
    const json = '{"command":"true","timeout_ms":10000.0,"id":1234567890123456789}';
    const { requests, events } = await played((call) => {
      if (call.n > 1) return done(call);
      call.say(answerEvents([{ type: "tool_use", id: "toolu_a", name: "bash", json }], "tool_use"));
      call.response.end();
    });

    expect(requests[1]).toContain(`"input":${json}`);
    expect(JSON.stringify(eventsOf(events, "tool.intent")[0]?.data.input)).toBe(json);
    expect(reasonOf(events)).toBe("end_turn");
  });
});

describe("a context that does not fit", () => {
  it.each([
    "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000, decrease input length or `max_tokens` and try again",
    "Input is too long for requested model.",
    "This model's maximum context length is 131072 tokens. However, your messages resulted in 140000 tokens.",
  ])("is summarised when the endpoint says: %s", async (message) => {
    const { events } = await played((call) => {
      const { n, raw, say, response } = call;
      if (raw.includes("Summarise the conversation so far")) {
        say(answerEvents([text("SUMMARY")], "end_turn"));
        response.end();
      } else if (raw.includes("replaced by a summary")) done(call);
      else if (n <= 3) {
        say(answerEvents([bash(`toolu_${n}`, `echo ${n}`)], "tool_use"));
        response.end();
      } else {
        const error = { type: "error", error: { type: "invalid_request_error", message } };
        response.writeHead(400, { "content-type": "application/json" }).end(JSON.stringify(error));
      }
    });

    expect(eventsOf(events, "context.compacted")).toHaveLength(1);
    expect(reasonOf(events)).toBe("end_turn");
  });

  it("because of the results of its last answer has them cut until it fits, and says so", async () => {
    const window = { contextWindowTokens: 32_000, maxOutputTokens: 4000 };
    const { events, requests } = await played((call) => {
      const { raw, say, response } = call;
      if (raw.length / 4 > 28_000) {
        const error = { type: "invalid_request_error", message: "prompt is too long" };
        response
          .writeHead(400, { "content-type": "application/json" })
          .end(JSON.stringify({ type: "error", error }));
      } else if (raw.includes("out-end")) done(call);
      else {
        const print = "seq 100000 112300 | tr '\\n' ' '; echo out-end";
        say(answerEvents([bash("toolu_a", print), bash("toolu_b", print)], "tool_use", null));
        response.end();
      }
    }, window);

    expect(reasonOf(events)).toBe("end_turn");
    expect(eventsOf(events, "session.error")).toEqual([]);
    expect(requests.at(-1)).toContain("This result is shortened");
    expect(eventsOf(events, "tool.result")[0]?.data.content.length).toBeGreaterThan(80_000);
  });
});
