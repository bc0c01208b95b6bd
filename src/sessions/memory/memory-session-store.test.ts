import { describeSessionLog } from "../../../test/contracts/session-log/suite.ts";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../../test/fakes/seeded-rng.ts";
import { assembleStore } from "../store/session-store.ts";
import { noJournal } from "./journal.ts";
import { MemoryBackend } from "./memory-backend.ts";

describeSessionLog("memory", (timings) => {
  const clock = new FakeClock();
  const backend = new MemoryBackend({ clock, journal: noJournal });
  const store = assembleStore({
    backend,
    clock,
    rng: createSeededRng(),
    timings,
  });
  return Promise.resolve({
    store,
    backend,
    pass: (ms: number) => clock.advance(ms),
    traces: async (ref) => ((await backend.head(ref)) === null ? [] : ["log"]),
    close: () => store.close(),
  });
});
