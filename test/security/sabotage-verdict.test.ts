import { expect, it } from "@jest/globals";
import { sabotaged } from "./sabotage.ts";
import { type JestResult, verdictOf } from "./sabotage-verdict.ts";

function failing(message: string): JestResult {
  const test = { fullName: "T99 holds", status: "failed", failureMessages: [message] };
  return {
    success: false,
    numPassedTests: 0,
    numRuntimeErrorTestSuites: 0,
    testResults: [{ message: "", assertionResults: [test] }],
  };
}

it.each([
  "Error: expect(received).toBe(expected) // Object.is equality",
  "Error: the call did not happen\n    at eventually",
  "Error: the tree is clean\n\nexpect(received).toEqual(expected)",
])("a failed expectation or a wait in vain is a catch: %s", (message) => {
  expect(verdictOf(failing(message))).toEqual({ caught: true, by: "T99 holds" });
});

it.each([
  "TypeError: target.credential is undefined",
  "ReferenceError: tokens is not defined",
  "Error: the daemon did not start: SyntaxError",
])("a rig that no longer runs is no catch: %s", (message) => {
  expect(verdictOf(failing(message))).toMatchObject({
    caught: false,
    why: expect.stringContaining("fails by no assertion"),
  });
});

it("neither is a file that does not load, a run without a report, or one that passes", () => {
  const passing = { ...failing(""), success: true, testResults: [] };
  const broken = { ...passing, numRuntimeErrorTestSuites: 1 };

  expect([verdictOf(broken), verdictOf(undefined), verdictOf(passing)]).toEqual([
    { caught: false, why: expect.stringContaining("does not load") },
    { caught: false, why: "Jest wrote no report" },
    { caught: false, why: "no test fails" },
  ]);
});

it("a text that is not in the file exactly once is an error that names the sabotage", () => {
  const one = { case: "T99", defence: "it is off", file: "src/a.ts", find: "a", replace: "$&b" };
  const sabotage = { ...one, test: "test/security/t99-a.test.ts" };

  expect(sabotaged("xax", sabotage)).toBe("x$&bx");
  for (const text of ["x", "aa"]) {
    expect(() => sabotaged(text, sabotage)).toThrow(/T99 "it is off".*src\/a\.ts/);
  }
});
