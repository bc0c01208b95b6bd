import { describe, expect, it } from "@jest/globals";
import { parseStat, planKill } from "./processes.ts";

const process = (pid: number, parent: number, group = pid, session = pid, marked = false) => ({
  pid,
  parent,
  group,
  session,
  marked,
});

describe("what belongs to a shell", () => {
  const daemon = process(10, 1);
  const shell = process(20, 10, 20, 20, true);

  it.each([
    { name: "a child in its group", one: process(30, 20, 20, 20), want: true },
    { name: "an orphan of its session", one: process(30, 1, 30, 20), want: true },
    { name: "a descendant without environment", one: process(30, 20), want: true },
    {
      name: "a re-parented process that carries the marker",
      one: process(30, 1, 30, 30, true),
      want: true,
    },
    { name: "a process of somebody else", one: process(30, 1), want: false },
    { name: "another child of the daemon", one: process(30, 10), want: false },
  ])("$name: $want", ({ one, want }) => {
    expect(planKill([daemon, shell, one], 20, 10).includes(30)).toBe(want);
  });

  it("is followed over any number of generations, in any order", () => {
    const chain = [process(33, 32), process(32, 31), process(31, 30), process(30, 20)];

    expect(planKill([daemon, ...chain, shell], 20, 10).toSorted((a, b) => a - b)).toEqual([
      20, 30, 31, 32, 33,
    ]);
  });

  it("is only what carries the marker when there is no shell", () => {
    expect(planKill([daemon, shell, process(30, 1)], undefined, 10)).toEqual([20]);
  });

  it("never includes the daemon, even when it carries the marker", () => {
    expect(planKill([process(10, 1, 10, 10, true), shell], 20, 10)).toEqual([20]);
  });
});

describe("/proc/<pid>/stat", () => {
  it("is read although the command name holds spaces and parentheses", () => {
    expect(parseStat("42 (a b) c) S 7 41 40 0 -1 4194560")).toEqual({
      pid: 42,
      parent: 7,
      group: 41,
      session: 40,
    });
  });

  it("of a zombie or of nothing is no process", () => {
    expect(parseStat("42 (x) Z 7 41 40 0")).toBeUndefined();
    expect(parseStat("")).toBeUndefined();
  });
});
