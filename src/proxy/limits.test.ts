import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { RequestLimits, SESSION_IN_FLIGHT } from "./limits.ts";

function limits(
  changes: { maxInFlight?: number; tenantShare?: number; requestsPerMinute?: number } = {},
) {
  const clock = new FakeClock();
  return {
    clock,
    limits: new RequestLimits({ maxInFlight: 100, requestsPerMinute: 60, clock, ...changes }),
  };
}

describe("the limits of requests", () => {
  it("let a session make so many at once, then evenly, and say which limit it was", async () => {
    const { clock, limits: own } = limits();
    for (let each = 0; each < 60; each += 1) own.enter("a", "team")();

    expect(() => own.enter("a", "team")).toThrow("the session has made 60 requests in a minute");
    own.enter("b", "team")();
    await clock.advance(1000);
    own.enter("a", "team")();
    expect(() => own.enter("a", "team")).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED", details: { limit: 60 } }),
    );
    await clock.advance(3_600_000);
    for (let each = 0; each < 60; each += 1) own.enter("a", "team")();
    expect(() => own.enter("a", "team")).toThrow("60 requests");
  });

  it("bound what runs at one time, for a session and for all", () => {
    const { limits: own } = limits({ maxInFlight: SESSION_IN_FLIGHT + 1 });
    const leave = Array.from({ length: SESSION_IN_FLIGHT }, () => own.enter("a", "team"));

    expect(() => own.enter("a", "team")).toThrow(
      `the session has ${SESSION_IN_FLIGHT} requests in flight`,
    );
    leave.push(own.enter("b", "team"));
    expect(() => own.enter("c", "team")).toThrow("the proxy has");
    for (const each of leave) each();
    own.enter("a", "team")();
  });

  it("leave room for others: one tenant takes its share and no more, with however many sessions", () => {
    const { limits: own } = limits({ maxInFlight: 5, tenantShare: 0.5 });
    const leave = ["a", "b", "c"].map((session) => own.enter(session, "team-a"));

    expect(() => own.enter("d", "team-a")).toThrow(
      'the sessions of "team-a" have 3 requests in flight',
    );
    own.enter("e", "team-b");
    leave[0]?.();
    own.enter("d", "team-a");
  });
});
