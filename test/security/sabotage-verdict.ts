import type { Sabotage } from "./sabotage.ts";

/** What is read of Jest's JSON report. */
export interface JestResult {
  success: boolean;
  numPassedTests: number;
  numRuntimeErrorTestSuites: number;
  testResults: readonly {
    message: string;
    assertionResults: readonly {
      fullName: string;
      status: string;
      failureMessages: readonly string[];
    }[];
  }[];
}

export type Verdict = { caught: true; by: string } | { caught: false; why: string };

export interface Outcome {
  sabotage: Sabotage;
  seconds: number;
  verdict: Verdict;
}

/** What an expectation or a wait that ran out says; anything else may be a rig that does not start. */
const REFUSALS =
  /^Error: [^]*?(?:expect\(|did not happen|not seen: |was not met in|Exceeded timeout of)/;

/** Caught is what made a test fail by what it states, not by a source text that does not run. */
export function verdictOf(result: JestResult | undefined): Verdict {
  if (result === undefined) return { caught: false, why: "Jest wrote no report" };
  if (result.numRuntimeErrorTestSuites > 0) {
    const message = firstLines(result.testResults[0]?.message ?? "");
    return { caught: false, why: `the test file does not load: ${message}` };
  }
  const tests = result.testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status === "failed");
  const refused = failed.find(({ failureMessages }) =>
    failureMessages.some((message) => REFUSALS.test(message)),
  );
  if (refused !== undefined) return { caught: true, by: refused.fullName };
  const [other] = failed;
  if (other !== undefined) {
    const message = firstLines(other.failureMessages[0] ?? "");
    return { caught: false, why: `"${other.fullName}" fails by no assertion: ${message}` };
  }
  return { caught: false, why: "no test fails" };
}

/** The table, the sum last. */
export function reportLines(outcomes: readonly Outcome[]): string[] {
  const caught = outcomes.filter(({ verdict }) => verdict.caught).length;
  return [
    "| case | defence that is off | caught by | seconds |",
    "|---|---|---|---|",
    ...outcomes.map(({ sabotage, seconds, verdict }) => {
      const by = verdict.caught ? verdict.by : `**NOT CAUGHT**: ${verdict.why}`;
      return `| ${sabotage.case} | ${sabotage.defence} | ${by} | ${seconds.toFixed(1)} |`;
    }),
    `${outcomes.length} sabotages, ${caught} caught`,
  ];
}

function firstLines(message: string): string {
  return message.trim().split("\n").slice(0, 3).join(" ");
}
