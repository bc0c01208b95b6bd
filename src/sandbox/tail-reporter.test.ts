import { expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { TAIL_BYTES } from "./runner-protocol.ts";
import { TailReporter } from "./tail-reporter.ts";

it("tells the first output at once, what follows in a burst once, and only the end of it", async () => {
  const clock = new FakeClock();
  const told: string[] = [];
  const subject = new TailReporter(clock, (tail) => told.push(tail.toString("utf8")));

  subject.write(Buffer.from("first"));
  subject.write(Buffer.from(" second"));
  subject.write(Buffer.from(`third${"x".repeat(TAIL_BYTES - 3)}`));
  subject.write(Buffer.from("end"));
  const atOnce = [...told];
  await clock.advance(100);

  expect(atOnce).toEqual(["first"]);
  expect(told).toEqual(["first", `${"x".repeat(TAIL_BYTES - 3)}end`]);
});

it("tells nothing after the call is over", async () => {
  const clock = new FakeClock();
  const told: string[] = [];
  const subject = new TailReporter(clock, (tail) => told.push(tail.toString("utf8")));
  subject.write(Buffer.from("first"));
  subject.write(Buffer.from("second"));

  subject.close();
  await clock.advance(1000);

  expect(told).toEqual(["first"]);
});
