import { describe, expect, it } from "@jest/globals";
import { childName, labelValue, poolDeployment, sandboxPodName } from "./names.ts";

const DNS_LABEL = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const sandbox = { sessionId: "sesn_1", hand: "sandbox", generation: 1 };

describe("names of children", () => {
  it.each([
    "hello",
    "a".repeat(63),
    "b".repeat(64),
    "c".repeat(253),
    "1st",
    "with.dots",
    "x-".repeat(30),
  ])("a sandbox of a session named %s has a valid pod name", (objectName) => {
    const name = sandboxPodName({ ...sandbox, objectName });

    expect(name).toMatch(DNS_LABEL);
    expect(name.length).toBeLessThanOrEqual(63);
    expect(sandboxPodName({ ...sandbox, objectName })).toBe(name);
  });

  it("pods of other sessions, hands and generations have other names", () => {
    const objectName = "d".repeat(253);
    const names = [
      sandboxPodName({ ...sandbox, objectName }),
      sandboxPodName({ ...sandbox, objectName, sessionId: "sesn_2" }),
      sandboxPodName({ ...sandbox, objectName, hand: "other" }),
      sandboxPodName({ ...sandbox, objectName, generation: 2 }),
    ];

    expect(new Set(names).size).toBe(4);
  });

  it("a short name stays readable, a long or dotted one is cut and stays unique", () => {
    expect(poolDeployment("default")).toBe("drover-harness-default");
    expect(childName("drover-pool-", "a.b")).not.toBe(childName("drover-pool-", "a-b"));
    expect(labelValue("e".repeat(252) + "f")).not.toBe(labelValue("e".repeat(252) + "g"));
    expect(labelValue("e".repeat(253)).length).toBeLessThanOrEqual(63);
  });
});
