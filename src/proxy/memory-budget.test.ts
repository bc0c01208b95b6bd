import { describe, expect, it } from "@jest/globals";
import { MemoryBudget } from "./memory-budget.ts";

const KIB = 1024;
const newBudget = () => new MemoryBudget({ maxBytes: 1000 * KIB, sessionShare: 0.5 });
const full = (which: RegExp) =>
  expect.objectContaining({
    code: "UPSTREAM_REFUSED",
    message: expect.stringMatching(which),
    details: { limit: expect.any(Number), outcome: "unknown" },
  });

describe("MemoryBudget", () => {
  it("refuses one session more than its share, with the limit in the message", () => {
    const budget = newBudget();
    const hold = budget.open("a");
    hold.add(64 * KIB + 500 * KIB);

    expect(() => hold.add(1)).toThrow(full(/the session's .* 512000 bytes/));
    expect(() => budget.open("b").add(500 * KIB)).not.toThrow();
  });

  it("refuses all sessions more than there is, and counts what is let go", () => {
    const budget = newBudget();
    const holds = ["a", "b"].map((session) => budget.open(session));
    for (const hold of holds) hold.add(564 * KIB);
    const third = budget.open("c");

    expect(() => third.add(65 * KIB)).toThrow(full(/1024000 bytes/));
    holds[0]?.release();
    expect(() => third.add(400 * KIB)).not.toThrow();
  });

  it("has room for ordinary bodies when all the rest is taken", () => {
    const budget = newBudget();
    for (const session of ["a", "b"]) budget.open(session).add(564 * KIB);

    for (let index = 0; index < 100; index += 1) {
      expect(() => budget.open("c").add(64 * KIB)).not.toThrow();
    }
  });

  it("counts a body that comes in pieces once, also after it was let go in between", () => {
    const budget = newBudget();
    const hold = budget.open("a");
    for (let round = 0; round < 100; round += 1) {
      for (let piece = 0; piece < 100; piece += 1) hold.add(5 * KIB);
      hold.release();
    }

    expect(() => budget.open("a").add(500 * KIB)).not.toThrow();
  });
});
