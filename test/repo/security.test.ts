import { existsSync, readFileSync } from "node:fs";
import { beforeAll, expect, it } from "@jest/globals";
import { attackSuitePage, CASES, testsOf } from "../security/cases.ts";
import { loadSabotages, type Sabotage, sabotaged } from "../security/sabotage.ts";

let sabotages: readonly Sabotage[] = [];

beforeAll(async () => {
  sabotages = await loadSabotages();
});

it.each(Object.keys(CASES))("%s has a test, and a sabotage that the test must catch", (id) => {
  const tests = testsOf(id);
  const caught = sabotages.filter((sabotage) => sabotage.case === id);

  expect(tests).not.toEqual([]);
  expect(new Set(caught.map(({ test }) => test))).toEqual(new Set(tests));
});

it("every sabotage fits the source as it is, and belongs to a case", () => {
  for (const sabotage of sabotages) {
    expect(Object.keys(CASES)).toContain(sabotage.case);
    expect(existsSync(sabotage.file) ? sabotage.file : `no ${sabotage.file}`).toBe(sabotage.file);
    const text = readFileSync(sabotage.file, "utf8");
    expect(sabotaged(text, sabotage)).not.toBe(text);
  }
});

it("the page about the suite says what there is; if not, run: npm run security:sabotage -- --page", () => {
  expect(readFileSync("docs/security/attack-suite.md", "utf8")).toBe(attackSuitePage(sabotages));
});
