import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { newRef, newSession } from "../../test/builders/sessions.ts";
import { aSnapshot } from "../../test/builders/snapshot.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { createSandboxClient } from "../protocol/sandbox-client.ts";
import { AppError } from "../runtime/errors.ts";
import { silentLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { createMemorySessionStore } from "../sessions/memory/memory-session-store.ts";
import type { Lease, NewEvent } from "../sessions/session-log.ts";
import { Journal } from "./journal.ts";
import { createHarnessMetrics } from "./metrics.ts";
import { newEvent } from "./run-context.ts";
import { type HandAnswer, SandboxHands, type SandboxHandsDeps } from "./sandbox-hands.ts";

/** What happens to one request for a sandbox. */
type Fate = "no token" | "no connection" | "lost answer" | "busy" | "started" | "done";

const clock = new FakeClock();
const rng = createSeededRng();
let stop: AbortController;

beforeEach(() => {
  stop = new AbortController();
});

afterEach(() => stop.abort());

/** One pending call with a live sandbox; `fate` is asked at each request, with the ms since the first. */
const INTENT = {
  id: "toolu_1",
  name: "bash",
  target: "sandbox" as const,
  hand: "sandbox",
  input: { command: "true", timeout_ms: 500_000 },
  inputHash: "",
  class: "idempotent" as const,
  permission: "allow" as const,
};
const WHERE = { hand: "sandbox", generation: 1 };

/** A log with one pending call for which a sandbox has been asked; its clock may be another's. */
async function pendingCall(logClock = clock, timeoutMs = INTENT.input.timeout_ms) {
  const store = createMemorySessionStore({ clock: logClock, rng });
  const ref = newRef();
  await store.log.createSession(newSession(ref));
  const lease = await claim(store.queue("w").claim({ capacity: () => 1, signal: stop.signal }));
  for await (const _ of lease.getEvents());
  const events = [
    newEvent(rng, "tool.intent", { ...INTENT, input: { ...INTENT.input, timeout_ms: timeoutMs } }),
    newEvent(rng, "sandbox.requested", { ...WHERE, template: "t" }),
  ];
  return { lease, events, journal: new Journal({ lease, clock }) };
}

function handsOf(
  { lease, journal }: { lease: Lease; journal: Journal },
  sandboxClient: SandboxHandsDeps["sandboxClient"],
) {
  return new SandboxHands({
    lease,
    journal,
    snapshot: aSnapshot(),
    clock,
    rng,
    logger: silentLogger,
    metrics: createHarnessMetrics(createRegistry("harness", "test")),
    signals: { dead: stop.signal, leave: stop.signal, hard: stop.signal },
    tokens: {
      session: () => Promise.resolve("s"),
      execute: () => Promise.resolve("e"),
      sandbox: () => Promise.resolve("x"),
      invalidate: () => {},
    },
    sandboxClient,
    edge: undefined,
  });
}

/** The call with a live sandbox; `fate` is asked at each request, with the ms since the first. */
async function rig(fate: (ms: number) => Fate, timeoutMs = INTENT.input.timeout_ms) {
  const { lease, events, journal } = await pendingCall(clock, timeoutMs);
  await journal.load();
  await journal.append([
    ...events,
    newEvent(rng, "sandbox.provisioned", { ...WHERE, sandboxId: "sbx", address: "sandbox:1" }),
  ]);
  const started = clock.monotonic();
  let current: Fate = "done";
  const hands = handsOf({ lease, journal }, () =>
    createSandboxClient({
      clock,
      logger: silentLogger,
      token: () => {
        current = fate(clock.monotonic() - started);
        if (current !== "no token") return Promise.resolve("token");
        return Promise.reject(new AppError("UNAVAILABLE", "the issuer does not answer"));
      },
      fetch: () => respond(current),
    }),
  );
  const call = [...journal.state.calls.values()][0];
  if (call === undefined) throw new Error("no call");
  const never = new AbortController().signal;
  const outcome = { answer: undefined as HandAnswer | undefined, afterMs: 0 };
  const ending = hands.call(call, { cancel: never, leave: never }).then((ended) => {
    outcome.answer = ended;
    outcome.afterMs = clock.monotonic() - started;
  });
  for (let ms = 0; outcome.answer === undefined && ms < 200_000; ms += 500) {
    await clock.advance(500);
  }
  await ending;
  return { ...outcome, released: journal.state.sandboxes.get("sandbox")?.[0]?.ended?.reason };
}

async function claim(leases: AsyncIterable<Lease>): Promise<Lease> {
  for await (const lease of leases) return lease;
  throw new Error("nothing to claim");
}

async function respond(fate: Fate): Promise<Response> {
  const reply = (body: object, status = 200) => new Response(JSON.stringify(body), { status });
  switch (fate) {
    case "no connection":
      throw networkError("ECONNREFUSED");
    case "lost answer":
      throw networkError("ECONNRESET");
    case "busy":
      return reply({ error: { code: "UNAVAILABLE", message: "64 calls are running" } }, 503);
    case "started":
      // As a daemon that waits for the end of the call before it says that there is none yet.
      await clock.sleep(1000);
      return reply({ id: "toolu_1", state: "started" });
    case "no token":
    case "done": {
      const result = { content: "out", is_error: false, outcome: "known" };
      return reply({ id: "toolu_1", state: "done", result });
    }
  }
}

function networkError(code: string): Error {
  return new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) });
}

describe("a sandbox", () => {
  it("that nobody answers for ten seconds without a break is gone", async () => {
    const { answer, released } = await rig(() => "no connection");

    expect(released).toBe("Unreachable");
    expect(answer).toMatchObject({ outcome: "known", isError: true });
  });

  it("that answers between two short breaks of one long call is not gone", async () => {
    const { answer, released } = await rig((ms) => {
      if (ms > 40_000) return "done";
      return ms % 15_000 < 1000 ? "no connection" : "started";
    });

    expect(released).toBeUndefined();
    expect(answer).toMatchObject({ content: "out", outcome: "known" });
  });

  it.each(["no token", "busy", "lost answer"] as const)(
    "keeps its files through a minute of: %s",
    async (fate) => {
      const { answer, released } = await rig((ms) => (ms < 60_000 ? fate : "done"));

      expect(released).toBeUndefined();
      expect(answer).toMatchObject({ content: "out", outcome: "known" });
    },
  );

  it.each(["no token", "busy"] as const)(
    "that cannot be given a call for minutes (%s) is kept, and the model hears that nothing was sent",
    async (fate) => {
      const { answer, released, afterMs } = await rig(() => fate);

      expect(released).toBeUndefined();
      expect(answer).toMatchObject({ isError: true, outcome: "known" });
      expect(answer).toMatchObject({ content: expect.stringContaining("The call was not sent") });
      expect(afterMs).toBeGreaterThanOrEqual(120_000);
    },
  );

  it("that has taken a call keeps its outcome unknown when no token can be had for it any more", async () => {
    const { answer, released } = await rig((ms) => (ms < 2000 ? "started" : "no token"));

    expect(released).toBeUndefined();
    expect(answer).toMatchObject({ isError: true, outcome: "unknown" });
  });
});

describe("a sandbox that answers in turns", () => {
  it.each([
    ["started", "busy"],
    ["started", "no connection"],
    ["started", "lost answer"],
  ] as const)(
    "%s, %s: holds a call no longer than its own time limit allows",
    async (one, other) => {
      let asked = 0;
      const { answer, afterMs } = await rig(() => (asked++ % 2 === 0 ? one : other), 30_000);

      expect(answer).toMatchObject({ isError: true, outcome: "unknown" });
      expect(afterMs).toBeLessThan(110_000);
      expect(asked).toBeLessThan(120);
    },
  );
});

describe("a sandbox that has been asked for", () => {
  it("gets its whole time to start from who looks at it, whatever the log's clock says", async () => {
    const { lease, events, journal } = await pendingCall(new FakeClock(clock.now() - 3_600_000));
    await lease.emitEvents(JSON.parse(JSON.stringify(events)) as NewEvent[]);
    await journal.load();
    const hands = handsOf({ lease, journal }, () =>
      createSandboxClient({ clock, logger: silentLogger, token: () => Promise.resolve(""), fetch }),
    );
    const call = journal.state.calls.get(INTENT.id);
    if (call === undefined) throw new Error("no call");
    const never = new AbortController().signal;
    const answer = hands.call(call, { cancel: never, leave: never });
    const reason = () => journal.state.sandboxes.get("sandbox")?.[0]?.ended?.reason;

    await clock.advance(29_000);
    expect(reason()).toBeUndefined();
    await clock.advance(600_000);

    expect(reason()).toBe("StartDeadlineExceeded");
    expect(await answer).toMatchObject({ outcome: "known", isError: true });
  });
});
