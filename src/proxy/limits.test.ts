import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { RequestLimits, SESSION_IN_FLIGHT } from "./limits.ts";

function limits(changes: { maxInFlight?: number; requestsPerMinute?: number } = {}) {
  const clock = new FakeClock();
  return {
    clock,
    limits: new RequestLimits({ maxInFlight: 100, requestsPerMinute: 60, clock, ...changes }),
  };
}

describe("the limits of requests", () => {
  it("let a session make so many at once, then evenly, and say which limit it was", async () => {
    const { clock, limits: own } = limits();
    for (let each = 0; each < 60; each += 1) own.enter("a")();

    expect(() => own.enter("a")).toThrow("the session has made 60 requests in a minute");
    own.enter("b")();
    await clock.advance(1000);
    own.enter("a")();
    expect(() => own.enter("a")).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED", details: { limit: 60 } }),
    );
    await clock.advance(3_600_000);
    for (let each = 0; each < 60; each += 1) own.enter("a")();
    expect(() => own.enter("a")).toThrow("60 requests");
  });

  it("bound what runs at one time, for a session and for all", () => {
    const { limits: own } = limits({ maxInFlight: SESSION_IN_FLIGHT + 1 });
    const leave = Array.from({ length: SESSION_IN_FLIGHT }, () => own.enter("a"));

    expect(() => own.enter("a")).toThrow(`the session has ${SESSION_IN_FLIGHT} requests in flight`);
    leave.push(own.enter("b"));
    expect(() => own.enter("c")).toThrow("the proxy has");
    for (const each of leave) each();
    own.enter("a")();
  });
});
