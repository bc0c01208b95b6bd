import { afterEach, describe, expect, it } from "@jest/globals";
import { systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import type { SessionStore } from "../../../src/sessions/session-log.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";
import { eventsOf, HarnessBed, TIMINGS } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";
import { withLeases } from "./leases.ts";

const SCRIPT = `
scenarios:
  slow:
    turns:
      - { delayMs: 1000, say: Late. }
  quick:
    turns: [{ say: Quick. }]
  bash:
    turns:
      - tools: [{ name: bash, input: { command: "echo one >> effects" } }]
      - { say: Done. }
`;

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

async function bedOn(store?: SessionStore): Promise<HarnessBed> {
  const rig = new HarnessBed(store);
  await rig.start(SCRIPT);
  cleanups.add(async () => await rig.stop());
  return rig;
}

describe("a session whose work cannot be put aside", () => {
  it("is taken up again after an outage of Redis that outlasts every write of its worker", async () => {
    const redis = await startRedis();
    cleanups.add(async () => await redis.stop());
    const store = await openRedisStore({ url: redis.url, timings: TIMINGS, writeDeadlineMs: 300 });
    const rig = await bedOn(store);
    const running = rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    await rig.until(
      ref,
      "the request",
      (events) => eventsOf(events, "model.request_start").length > 0,
    );

    await redis.kill();
    await eventually("the worker gives up", () => running.worker.active === 0);
    expect(running.worker.active).toBe(0);
    await redis.start();

    const events = await rig.idle(ref);
    expect(eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason).toBe("end_turn");
    expectInvariants(events, await rig.requests());
  }, 60_000);

  it("goes on when a sandbox says without reason that its lease is over", async () => {
    const rig = await bedOn();
    let refused = 0;
    const running = rig.startWorker({
      sandboxClient: (client) => ({
        ...client,
        execute: async (address, request, signal) => {
          refused += 1;
          if (refused === 1) throw new AppError("SANDBOX_STALE_EPOCH", "a newer epoch was here");
          return await client.execute(address, request, signal);
        },
      }),
    });
    const ref = await rig.createSession("go", { model: "scripted:bash" });

    await rig.idle(ref);

    expect(rig.file(ref, "effects")).toBe("one\n");
    // A sandbox does not decide who holds a session: the call is sent again, under the same lease.
    const ends = "drover_harness_session_ends_total{outcome=";
    expect(await rig.metric(running, `${ends}"lost"}`)).toBe(0);
    expect(await rig.metric(running, `${ends}"failed"}`)).toBe(0);
    const claims = "drover_harness_claims_total{outcome=";
    expect(await rig.metric(running, `${claims}"takeover"}`)).toBe(0);
  });

  it("is left idle after five failures although messages arrive while it is given up", async () => {
    const rig = await bedOn();
    let messages = 0;
    rig.startWorker({
      options: { failureBackoff: { baseMs: 10, maxMs: 10 } },
      sandboxClient: (client) => ({
        ...client,
        execute: () => Promise.reject(new AppError("INTERNAL", "not a daemon's answer")),
      }),
      queue: (queue) =>
        withLeases(queue, (lease) => {
          const emit = lease.emitEvents.bind(lease);
          lease.emitEvents = async (events, emitOptions) => {
            if (emitOptions?.release?.kind === "idle" && messages === 0) {
              messages += 1;
              await rig.say(lease.ref, "one more thing");
            }
            return await emit(events, emitOptions);
          };
          return lease;
        }),
    });
    const ref = await rig.createSession("go", { model: "scripted:bash" });

    const events = await rig.idle(ref);

    expect(messages).toBe(1);
    expect(eventsOf(events, "session.error").at(-1)?.data.retry_status).toBe("exhausted");
    expect(eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason).toBe(
      "retries_exhausted",
    );
  });
});

describe("a lease that has not been renewed for long", () => {
  it("holds a tool call back until it is renewed", async () => {
    const rig = await bedOn();
    let fresh = true;
    let sent = 0;
    rig.startWorker({
      sandboxClient: (client) => ({
        ...client,
        execute: async (address, request, signal) => {
          sent += 1;
          return await client.execute(address, request, signal);
        },
      }),
      queue: (queue) =>
        withLeases(queue, (lease) => {
          fresh = false;
          lease.fresh = () => fresh;
          return lease;
        }),
    });
    const ref = await rig.createSession("go", { model: "scripted:bash" });
    await rig.until(ref, "the intent", (events) => eventsOf(events, "tool.intent").length > 0);
    await systemClock.sleep(400);
    expect(eventsOf(await rig.events(ref), "sandbox.requested")).toHaveLength(0);
    expect(sent).toBe(0);

    fresh = true;
    await rig.idle(ref);

    expect(rig.file(ref, "effects")).toBe("one\n");
  });
});
