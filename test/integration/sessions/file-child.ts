import { createInterface } from "node:readline";
import { systemClock } from "../../../src/runtime/clock.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import { openFileSessionStore } from "../../../src/sessions/file/file-session-store.ts";
import type { SessionRef } from "../../../src/sessions/session-log.ts";
import { event, message, newSession } from "../../builders/sessions.ts";

/**
 * A process to be killed: takes `{directory, ref}` on its standard input, works on the session and
 * prints one line per acknowledged event until it dies.
 */
const [line = "{}"] = await firstLine();
const { directory, ref }: { directory: string; ref: SessionRef } = JSON.parse(line);
const store = await openFileSessionStore({ directory, clock: systemClock, rng: systemRng });
await store.log.createSession(newSession(ref));
console.log("opened");
const options = { capacity: () => 1, signal: new AbortController().signal };
for await (const lease of store.queue("child").claim(options)) {
  for await (const _ of lease.getEvents());
  for (let i = 0; ; i += 1) {
    const own = event("tool.result", { i, text: "x".repeat(i % 7 === 0 ? 50_000 : 200) });
    const other = message(`${i}`);
    await Promise.all([
      lease
        .emitEvents([own], { durability: i % 3 === 0 ? "committed" : "applied" })
        .then((result) => {
          if (result.status === "ok") console.log(`acked ${result.first} ${own.id}`);
        }),
      store.log.emitEvents(ref, [other], { idempotencyKey: `k${i}` }).then(({ first }) => {
        console.log(`acked ${first} ${other.id} k${i}`);
      }),
    ]);
  }
}

function firstLine(): Promise<string[]> {
  return new Promise((resolve) => {
    createInterface({ input: process.stdin }).once("line", (text) => resolve([text]));
  });
}
