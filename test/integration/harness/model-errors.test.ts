import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { eventsOf, HarnessBed } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

const SCRIPT = `
scenarios:
  hello:
    turns:
      - { say: "A text that is long enough for more than three deltas, because each takes some characters of it and no more." }
      - { say: Again. }
  paced:
    turns: [{ say: "word ", repeat: 40, tokensPerSecond: 60 }]
`;

let rig: HarnessBed;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

describe("a model request that fails", () => {
  it.each([
    { fault: { kind: "status", status: 529 }, type: "overloaded" },
    { fault: { kind: "status", status: 429, retryAfterSeconds: 1 }, type: "rate_limited" },
    { fault: { kind: "status", status: 500 }, type: "server_error" },
    { fault: { kind: "hang_up" }, type: "connection" },
    { fault: { kind: "malformed" }, type: "malformed" },
    { fault: { kind: "overloaded_in_stream" }, type: "overloaded" },
    { fault: { kind: "overloaded_in_stream", afterDeltas: 3 }, type: "overloaded" },
    { fault: { kind: "cut_stream", afterDeltas: 2 }, type: "connection" },
    { fault: { kind: "status", status: 401 }, type: "unauthorized" },
    { fault: { kind: "timeout" }, type: "timeout" },
    { fault: { kind: "stall_stream", afterDeltas: 1 }, type: "timeout" },
  ])("by $fault is tried again, counted, and leaves no doubled text", async ({ fault, type }) => {
    await rig.plan("hello", [{ ...fault, call: 1 }]);
    const running = rig.startWorker({ modelTimeouts: { firstByteMs: 400, stallMs: 400 } });
    const ref = await rig.createSession("hi", { model: "scripted:hello" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
    expect(eventsOf(events, "model.request_end")).toHaveLength(1);
    expect(eventsOf(events, "model.request_abandoned").map((event) => event.data.reason)).toEqual([
      type,
    ]);
    expect(eventsOf(events, "session.error").map((event) => event.data.retry_status)).toEqual([
      "retrying",
    ]);
    const series = `drover_model_requests_total{outcome="error",error_type="${type}"}`;
    expect(await rig.metric(running, series)).toBe(1);
    expectInvariants(events, await rig.requests());
  });

  it("shows each attempt's preview under an id of its own", async () => {
    await rig.plan("paced", [{ kind: "cut_stream", afterDeltas: 20, call: 1 }]);
    const ref = await rig.createSession("hi", { model: "scripted:paced" });
    const stop = new AbortController();
    const texts = new Map<string, string>();
    const reading = (async () => {
      const options = { after: null, deltas: true, signal: stop.signal };
      for await (const item of rig.store.log.tailEvents(ref, options)) {
        if (item.kind !== "delta") continue;
        expect(item.off).toBe((texts.get(item.eventId) ?? "").length);
        texts.set(item.eventId, (texts.get(item.eventId) ?? "") + item.text);
      }
    })();
    rig.startWorker();

    const events = await rig.idle(ref);
    stop.abort();
    await reading;

    const end = eventsOf(events, "model.request_end")[0];
    expect(texts.size).toBe(2);
    expect(texts.get(end?.id ?? "")).toBe(String(end?.data.message[0]?.["text"]));
  });

  it.each([
    { fault: { kind: "status", status: 400 }, type: "model_request_failed_error", times: 1 },
    { fault: { kind: "status", status: 402 }, type: "billing_error", times: 1 },
    { fault: { kind: "malformed" }, type: "model_request_failed_error", times: 3 },
  ])("for good by $fault ends the turn visibly, and the next message works", async (given) => {
    await rig.plan("hello", [{ ...given.fault, call: 1, times: given.times }]);
    rig.startWorker();
    const ref = await rig.createSession("hi", { model: "scripted:hello" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.error").at(-1)?.data).toMatchObject({
      type: given.type,
      retry_status: "exhausted",
    });
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("retries_exhausted");
    await rig.say(ref, "and now?");
    const later = await rig.idle(ref, 2);
    expect(eventsOf(later, "session.status_idle")[1]?.data.stop_reason).toBe("end_turn");
    expectInvariants(later, await rig.requests());
  });

  it("by a refused credential says so in one sentence", async () => {
    await rig.plan("hello", [{ kind: "status", status: 401, call: 1, times: 3 }]);
    rig.startWorker();
    const ref = await rig.createSession("hi", { model: "scripted:hello" });

    const events = await rig.idle(ref);

    const { message } = eventsOf(events, "session.error").at(-1)?.data ?? { message: "" };
    expect(message).toMatch(/^the model refused the credential \(status 401\): /);
    expect(message).not.toContain("{");
  });

  it("shows a mismatch with the script as the error it is", async () => {
    rig.startWorker();
    const ref = await rig.createSession("hi", { model: "scripted:no-such-scenario" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.error")[0]?.data.message).toContain("no-such-scenario");
  });

  it("while it waits to try again, gives way to an interrupt", async () => {
    await rig.plan("hello", [{ kind: "status", status: 429, retryAfterSeconds: 30, call: 1 }]);
    rig.startWorker();
    const ref = await rig.createSession("hi", { model: "scripted:hello" });
    await rig.until(ref, "the error", (all) => eventsOf(all, "session.error").length > 0);
    await rig.send(ref, "user.interrupt", {});

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("interrupted");
  });
});
