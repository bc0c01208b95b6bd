import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { systemClock } from "../../../src/runtime/clock.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import { createMemorySessionStore } from "../../../src/sessions/memory/memory-session-store.ts";
import { eventsOf, HarnessBed } from "../harness-bed.ts";
import { CrashPlan } from "./crash.ts";
import { expectInvariants } from "./invariants.ts";

const SCRIPT = `
scenarios:
  work:
    turns:
      - say: Two at once.
        tools:
          - { name: bash, input: { command: "echo one >> effects; echo ONE" } }
          - { name: write, input: { file_path: other, content: two } }
      - expect: { contains: [ONE], results: 2 }
        tools: [{ name: bash, input: { command: "cat effects other" } }]
      - expect: { contains: [one, two] }
        say: Done.
`;

let rig: HarnessBed;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

describe("a worker that dies", () => {
  /** Writes of one whole run: abandon none, 3 starts, 3 ends, 1 request for a sandbox, 3 results, 1 idle. */
  const WRITES = 11;
  const points = Array.from({ length: WRITES }, (_, index) => index + 1).flatMap((at) => [
    { at, when: "before" as const },
    { at, when: "after" as const },
  ]);

  it.each(points)(
    "$when write $at leaves a log from which the next worker finishes",
    async ({ at, when }) => {
      const crash = new CrashPlan(at, when);
      rig.startWorker({
        queue: (queue) => crash.queue(queue),
        sandboxClient: (client) => crash.sandboxClient(client),
        isDead: () => crash.dead,
        // No room for more: the queue under a dead worker must not claim either.
        options: { concurrency: 1 },
      });
      const ref = await rig.createSession("go", { model: "scripted:work" });
      await rig.until(ref, "the crash", () => crash.dead);
      rig.startWorker();

      const events = await rig.idle(ref);

      expect(eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason).toBe("end_turn");
      expectInvariants(events, await rig.requests());
      expect(rig.file(ref, "effects")).toBe("one\n");
      expect(eventsOf(events, "tool.result").map((event) => event.data.outcome)).toEqual(
        Array.from({ length: 3 }, () => "known"),
      );
    },
  );
});

describe("a session that kills whoever works on it", () => {
  it("is quarantined after five deaths, and the others go on", async () => {
    await rig.stop();
    // The pauses between the takeovers are lives of a lease.
    const timings = { ttlMs: 60, renewMs: 15, pollMs: 10 };
    rig = new HarnessBed(createMemorySessionStore({ clock: systemClock, rng: systemRng, timings }));
    await rig.start(SCRIPT);
    const crashes = Array.from({ length: 5 }, () => new CrashPlan(1, "before"));
    const ref = await rig.createSession("go", { model: "scripted:work" });
    for (const crash of crashes) {
      rig.startWorker({
        queue: (queue) => crash.queue(queue),
        isDead: () => crash.dead,
        options: { concurrency: 1 },
      });
      await rig.until(ref, "the crash", () => crash.dead);
    }
    rig.startWorker();
    const other = await rig.createSession("go", { model: "scripted:work" });
    await rig.idle(other);

    await rig.until(ref, "quarantine", async () => {
      const found = await rig.store.log.getSession(ref);
      return found?.head.status === "quarantined";
    });

    expect(eventsOf(await rig.events(ref), "model.request_end")).toHaveLength(0);
  });
});
