import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { createMemorySessionStore } from "../../src/sessions/memory/memory-session-store.ts";
import { eventsOf, HarnessBed } from "./harness-bed.ts";
import { CrashPlan } from "./harness-crash.ts";
import { expectInvariants } from "./harness-invariants.ts";

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

let bed: HarnessBed;

beforeEach(async () => {
  bed = new HarnessBed();
  await bed.start(SCRIPT);
});

afterEach(() => bed.stop());

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
      bed.startWorker({
        queue: (queue) => crash.queue(queue),
        sandboxClient: (client) => crash.sandboxClient(client),
        isDead: () => crash.dead,
        // No room for more: the queue under a dead worker must not claim either.
        options: { concurrency: 1 },
      });
      const ref = await bed.createSession("go", { model: "scripted:work" });
      await bed.until(ref, "the crash", () => crash.dead);
      bed.startWorker();

      const events = await bed.idle(ref);

      expect(eventsOf(events, "session.status_idle").at(-1)?.data.stop_reason).toBe("end_turn");
      expectInvariants(events, await bed.requests());
      expect(bed.file(ref, "effects")).toBe("one\n");
      expect(eventsOf(events, "tool.result").map((event) => event.data.outcome)).toEqual(
        Array.from({ length: 3 }, () => "known"),
      );
    },
  );
});

describe("a session that kills whoever works on it", () => {
  it("is quarantined after five deaths, and the others go on", async () => {
    await bed.stop();
    // The pauses between the takeovers are lives of a lease.
    const timings = { ttlMs: 60, renewMs: 15, pollMs: 10 };
    bed = new HarnessBed(createMemorySessionStore({ clock: systemClock, rng: systemRng, timings }));
    await bed.start(SCRIPT);
    const crashes = Array.from({ length: 5 }, () => new CrashPlan(1, "before"));
    const ref = await bed.createSession("go", { model: "scripted:work" });
    for (const crash of crashes) {
      bed.startWorker({
        queue: (queue) => crash.queue(queue),
        isDead: () => crash.dead,
        options: { concurrency: 1 },
      });
      await bed.until(ref, "the crash", () => crash.dead);
    }
    bed.startWorker();
    const other = await bed.createSession("go", { model: "scripted:work" });
    await bed.idle(other);

    await bed.until(ref, "quarantine", async () => {
      const found = await bed.store.log.getSession(ref);
      return found?.head.status === "quarantined";
    });

    expect(eventsOf(await bed.events(ref), "model.request_end")).toHaveLength(0);
  });
});
