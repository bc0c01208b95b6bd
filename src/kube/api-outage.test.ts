import { expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createLogger } from "../runtime/logger.ts";
import { ApiOutage } from "./api-outage.ts";

function start() {
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "debug",
    process: "test",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const clock = new FakeClock();
  const told = () => lines.map(({ level, msg }) => `${String(level)}: ${String(msg)}`);
  return { clock, outage: new ApiOutage({ clock, logger }), lines, told };
}

const LOST = "warn: kubernetes api not reached; it is tried again";
const BACK = "info: kubernetes api reached again";

it("many failures are one line, and what works again between them is none", async () => {
  const { clock, outage, lines, told } = start();
  outage.answered();
  for (let each = 0; each < 10; each += 1) {
    outage.failed(`list ${each}: connection refused`);
    await clock.advance(2000);
    outage.answered();
    await clock.advance(2000);
  }

  expect(told()).toEqual([LOST]);
  expect(lines[0]).toMatchObject({ err: "list 0: connection refused" });
});

it("the end is one line with the time until the first answer, and the next outage another", async () => {
  const { clock, outage, lines, told } = start();
  outage.failed("cut");
  await clock.advance(30_000);
  outage.answered();
  await clock.advance(4000);
  outage.answered();
  await clock.advance(60_000);
  outage.answered();

  expect(told()).toEqual([LOST, BACK]);
  expect(lines[1]).toMatchObject({ durationMs: 30_000 });
  outage.failed("cut");
  expect(told()).toEqual([LOST, BACK, LOST]);
});
