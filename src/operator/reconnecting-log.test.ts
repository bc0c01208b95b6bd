import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { AppError } from "../runtime/errors.ts";
import { createLogger } from "../runtime/logger.ts";
import { createMemorySessionStore } from "../sessions/memory/memory-session-store.ts";
import { ReconnectingLog } from "./reconnecting-log.ts";

let stop = new AbortController();
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort());

function aLog() {
  const clock = new FakeClock();
  const rng = createSeededRng();
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "info",
    process: "operator",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const server: { problem: AppError | undefined } = { problem: undefined };
  const answer = async () => {
    if (server.problem !== undefined) throw server.problem;
  };
  const store = createMemorySessionStore({ clock, rng });
  const operator = Object.assign(Object.create(store.operator), {
    poolConfig: async () => {
      await answer();
      return null;
    },
  });
  const log = new ReconnectingLog({
    clock,
    rng,
    logger,
    connect: async () => {
      await answer();
      return { ...store, operator };
    },
    probe: answer,
  });
  void log.run(stop.signal);
  return { clock, log, lines, server };
}

const gone = () => new AppError("REDIS_UNREACHABLE", "Redis at redis:6379 does not answer");

describe("an outage of the session store", () => {
  it("is known within seconds, and is one line when it begins and one when it ends", async () => {
    const { clock, log, lines, server } = aLog();
    await clock.advance(10_000);
    server.problem = gone();
    await clock.advance(3_000);
    const soon = log.problem()?.code;
    await clock.advance(300_000);
    server.problem = undefined;
    await clock.advance(15_000);

    expect(soon).toBe("REDIS_UNREACHABLE");
    expect(log.problem()).toBeUndefined();
    expect(lines.map(({ level, msg }) => [level, msg])).toEqual([
      ["info", "session store connected"],
      ["warn", "session store not usable"],
      ["info", "session store usable again"],
    ]);
  });

  it("that turns out to be another problem is another line", async () => {
    const { clock, lines, server } = aLog();
    server.problem = gone();
    await clock.advance(20_000);
    server.problem = new AppError("REDIS_AUTH_FAILED", "Redis refuses the user");
    await clock.advance(60_000);

    expect(lines.flatMap(({ code }) => code ?? [])).toEqual([
      "REDIS_UNREACHABLE",
      "REDIS_AUTH_FAILED",
    ]);
  });
});
