import { describe, expect, it } from "@jest/globals";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { defineResource } from "./resources.ts";
import {
  type Condition,
  mergeConditions,
  mergePatch,
  rfc3339Micro,
  writeStatus,
} from "./status.ts";

const before: Condition[] = [
  {
    type: "Ready",
    status: "False",
    reason: "PodNotReady",
    message: "",
    observedGeneration: 1,
    lastTransitionTime: "2026-01-01T00:00:00Z",
  },
  {
    type: "Foreign",
    status: "True",
    reason: "Theirs",
    message: "",
    lastTransitionTime: "2026-01-01T00:00:00Z",
  },
];
const nowMs = Date.parse("2026-02-02T00:00:00.123Z");

describe("mergeConditions", () => {
  it("moves the time only when the status changes, and the generation always", () => {
    const same = { type: "Ready", status: "False", reason: "Other", message: "m" } as const;
    const changed = { type: "Ready", status: "True", reason: "Ready", message: "" } as const;

    expect(mergeConditions(before, [same], { generation: 2, nowMs })[0]).toEqual({
      ...same,
      observedGeneration: 2,
      lastTransitionTime: "2026-01-01T00:00:00Z",
    });
    expect(mergeConditions(before, [changed], { generation: 2, nowMs })[0]).toEqual({
      ...changed,
      observedGeneration: 2,
      lastTransitionTime: "2026-02-02T00:00:00Z",
    });
  });

  it("keeps order and conditions it was not told about, and adds new ones at the end", () => {
    const wanted = { type: "Stalled", status: "False", reason: "Fine", message: "" } as const;
    const merged = mergeConditions(before, [wanted], { generation: 1, nowMs });

    expect(merged.map(({ type }) => type)).toEqual(["Ready", "Foreign", "Stalled"]);
    expect(merged.slice(0, 2)).toEqual(before);
  });
});

describe("mergePatch", () => {
  it.each([
    { name: "nothing for equal values", from: { a: { b: [1] } }, to: { a: { b: [1] } } },
    { name: "a changed leaf", from: { a: 1, b: 2 }, to: { a: 1, b: 3 }, want: { b: 3 } },
    { name: "a removed field as null", from: { a: 1, b: 2 }, to: { a: 1 }, want: { b: null } },
    {
      name: "an undefined field as removed",
      from: { a: 1 },
      to: { a: undefined },
      want: { a: null },
    },
    { name: "nothing for a missing undefined", from: {}, to: { a: undefined } },
    {
      name: "only the inner difference",
      from: { a: { b: 1, c: 2 } },
      to: { a: { b: 1, c: 3 } },
      want: { a: { c: 3 } },
    },
    { name: "a list as a whole", from: { a: [1, 2] }, to: { a: [1] }, want: { a: [1] } },
    {
      name: "an object in place of a value",
      from: { a: 1 },
      to: { a: { b: 1 } },
      want: { a: { b: 1 } },
    },
  ])("is $name", ({ from, to, want }: { from: object; to: object; want?: object }) => {
    expect(mergePatch({ ...from }, { ...to })).toEqual(want);
  });
});

describe("writeStatus", () => {
  const things = defineResource("test.drover.dev/v1", "Thing", "things");
  const thing = {
    apiVersion: "test.drover.dev/v1",
    kind: "Thing",
    metadata: { name: "a", namespace: "one" },
    status: { phase: "x", list: [{ n: 1 }] } as Record<string, unknown>,
  };

  it("patches the difference once, and nothing when there is none at any depth", async () => {
    const kube = new FakeKube();
    const cached = kube.seed(things, thing);

    const same = { phase: "x", list: [{ n: 1, m: undefined }], more: undefined };
    expect(await writeStatus(kube, things, cached, same)).toBe(false);
    expect(await writeStatus(kube, things, cached, { phase: "y", list: [{ n: 1 }] })).toBe(true);
    expect(kube.requestsOf("patchStatus")).toMatchObject([{ body: { phase: "y" } }]);
  });
});

it("MicroTime has six digits", () => {
  expect(rfc3339Micro(nowMs)).toBe("2026-02-02T00:00:00.123000Z");
});
