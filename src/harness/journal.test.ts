import { afterEach, describe, expect, it } from "@jest/globals";
import { message, newRef, newSession } from "../../test/builders/sessions.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { createMemorySessionStore } from "../sessions/memory/memory-session-store.ts";
import type { Lease, SessionRef } from "../sessions/session-log.ts";
import { Journal } from "./journal.ts";

const clock = new FakeClock();
const store = createMemorySessionStore({ clock, rng: createSeededRng() });
const stop = new AbortController();

afterEach(() => stop.abort());

async function claimed(): Promise<{ ref: SessionRef; lease: Lease; journal: Journal }> {
  const ref = newRef();
  await store.log.createSession(newSession(ref));
  const queue = store.queue("w");
  for await (const lease of queue.claim({ capacity: () => 1, signal: stop.signal })) {
    // Nothing is folded but what the test asks for.
    lease.onEvents = () => () => {};
    const journal = new Journal({ lease, clock });
    await journal.load();
    return { ref, lease, journal };
  }
  throw new Error("nothing to claim");
}

describe("a decision to stop", () => {
  it("does not hold when an event is folded while it waits for its turn", async () => {
    const { ref, journal } = await claimed();
    const idle = {
      id: "sevt_idle",
      type: "session.status_idle" as const,
      data: { stop_reason: "end_turn" as const },
    };
    await store.log.emitEvents(ref, [message("late")], { idempotencyKey: "k" });

    const reading = journal.refresh();
    const released = journal.release({ kind: "idle", why: "end_turn" });
    const appended = journal.append([idle], {
      onlyIfTail: true,
      release: { kind: "idle", why: "end_turn" },
    });
    await reading;

    expect(await released).toBe("more");
    expect(await appended).toMatchObject({ status: "more" });
    expect(journal.state.seq).toBe(2);
  });
});
