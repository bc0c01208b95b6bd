import { expect, it } from "@jest/globals";
import { heapLimitOf } from "./process-memory.ts";

const MB = 1024 * 1024;

it.each([
  { name: "V8's own limit without a flag", flags: ["--cpu-prof"], want: 256 },
  {
    name: "the flag, because V8 adds the young objects",
    flags: ["--max-old-space-size=64"],
    want: 64,
  },
  {
    name: "the last flag",
    flags: ["--max-old-space-size=64", "--max_old_space_size=80"],
    want: 80,
  },
  { name: "never more than V8 says", flags: ["--max-old-space-size=9000"], want: 256 },
])("the heap's limit is $name", ({ flags, want }) => {
  expect(heapLimitOf(flags, 256 * MB) / MB).toBe(want);
});
