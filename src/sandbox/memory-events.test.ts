import { expect, it } from "@jest/globals";
import { killsBetween, parseKills, parseLimit } from "./memory-events.ts";

it.each([
  {
    name: "cgroup v2",
    text: "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
    want: 2,
  },
  { name: "cgroup v1", text: "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", want: 5 },
  { name: "neither", text: "", want: undefined },
])("the kernel's kill counter is read: $name", ({ text, want }) => {
  expect(parseKills(text)).toBe(want);
});

it.each([
  { text: "268435456\n", want: 268_435_456 },
  { text: "max\n", want: undefined },
  { text: "9223372036854771712\n", want: undefined },
])("the memory limit is read: $text", ({ text, want }) => {
  expect(parseLimit(text)).toBe(want);
});

it("kills are counted between two readings only", () => {
  const reading = (killed: number | undefined) => ({ killed, limitBytes: undefined });

  expect(killsBetween(reading(3), reading(5))).toBe(2);
  expect(killsBetween(reading(undefined), reading(undefined))).toBe(0);
});
