import { describe, expect, it } from "@jest/globals";
import { refusedRefs } from "./ref-policy.ts";

const OLD = "1".repeat(40);
const NEW = "2".repeat(40);
const NONE = "0".repeat(40);

function decide(refs: readonly (string | { ref: string; newId: string })[], patterns: string[]) {
  const commands = refs.map((one) =>
    typeof one === "string" ? { oldId: OLD, newId: NEW, ref: one } : { oldId: OLD, ...one },
  );
  return refusedRefs({ commands, capabilities: new Set() }, patterns);
}

describe("which refs a push may update", () => {
  it.each([
    ["refs/heads/agent/notes", ["agent/**"]],
    ["refs/heads/agent/a/b/c", ["agent/**"]],
    ["refs/heads/main", ["release", "main"]],
    ["refs/heads/team/agent/x", ["team/agent/**"]],
  ])("%s goes through with %j", (ref, patterns) => {
    expect(decide([ref], patterns).size).toBe(0);
  });

  it.each([
    ["refs/heads/main", ["agent/**"], "agent/** only"],
    ["refs/heads/agent", ["agent/**"], "agent/** only"],
    ["refs/heads/agentx/y", ["agent/**"], "agent/** only"],
    ["refs/heads/Agent/y", ["agent/**"], "agent/** only"],
    ["refs/heads/mainx", ["main"], "main only"],
    ["refs/heads/x/main", ["main"], "main only"],
    ["refs/heads/anything", [], "may not push to this repository"],
    ["refs/tags/v1", ["**", "agent/**"], "may not push tags"],
    ["refs/notes/commits", ["agent/**"], "branches only"],
    ["refs/for/agent/x", ["agent/**"], "branches only"],
    ["refs/pull/1/head", ["agent/**"], "branches only"],
    ["refs/heads/agent/x", ["agent/*"], "agent/* only"],
  ])("%s is refused with %j", (ref, patterns, reason) => {
    const refused = decide([ref], patterns);

    expect([...refused.keys()]).toEqual([ref]);
    expect(refused.get(ref)).toContain(reason);
  });

  it("no branch may be deleted, allowed ones neither", () => {
    const refused = decide([{ ref: "refs/heads/agent/x", newId: NONE }], ["agent/**"]);

    expect(refused.get("refs/heads/agent/x")).toContain("may not delete");
  });

  it("one refused ref refuses the others, each with a reason", () => {
    const refused = decide(["refs/heads/agent/x", "refs/heads/main"], ["agent/**"]);

    expect(refused.get("refs/heads/main")).toContain("agent/** only");
    expect(refused.get("refs/heads/agent/x")).toContain("another ref of this push");
  });

  it("a push with options is refused: a host may act on other branches for them", () => {
    const commands = [{ oldId: OLD, newId: NEW, ref: "refs/heads/agent/x" }];

    const refused = refusedRefs({ commands, capabilities: new Set(["push-options"]) }, [
      "agent/**",
    ]);

    expect(refused.get("refs/heads/agent/x")).toContain("push options");
  });

  it("a push that asks for what is not known here is refused, and says for what", () => {
    const commands = [{ oldId: OLD, newId: NEW, ref: "refs/heads/agent/x" }];
    const decideFor = (...names: string[]) =>
      refusedRefs({ commands, capabilities: new Set(names) }, ["agent/**"]);

    expect(decideFor("report-status", "agent", "atomic", "object-format").size).toBe(0);
    expect(decideFor("report-status", "push-cert").get("refs/heads/agent/x")).toContain(
      'asks for "push-cert", which is not passed on',
    );
  });
});
