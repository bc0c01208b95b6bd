import { describe, expect, it } from "@jest/globals";
import { bind, refuseStale } from "./binding.ts";

const claims = { sub: "s1", ten: "t", hand: "main", gen: 1, sbx: "pod", epoch: 3, exp: 0 };
const bound = { sessionId: "s1", tenant: "t", hand: "main", generation: 1, epoch: 3 };

describe("bind", () => {
  it("takes the first caller's session, hand, generation and epoch", () => {
    expect(bind(undefined, "pod", claims)).toEqual(bound);
  });

  it("leaves the binding as it is for the same epoch and for an earlier one", () => {
    expect(bind(bound, "pod", claims)).toBe(bound);
    expect(bind(bound, "pod", { ...claims, epoch: 2 })).toBe(bound);
  });

  it("raises the epoch", () => {
    expect(bind(bound, "pod", { ...claims, epoch: 4 })).toEqual({ ...bound, epoch: 4 });
  });

  it.each([{ sub: "s2" }, { ten: "u" }, { hand: "other" }, { gen: 2 }])(
    "refuses another owner: %j",
    (change) => {
      expect(() => bind(bound, "pod", { ...claims, ...change })).toThrow(
        expect.objectContaining({ code: "SANDBOX_BOUND" }),
      );
    },
  );

  it("refuses a token of another sandbox, bound or not", () => {
    for (const current of [undefined, bound]) {
      expect(() => bind(current, "other", claims)).toThrow(
        expect.objectContaining({ code: "FORBIDDEN" }),
      );
    }
  });
});

describe("refuseStale", () => {
  it("lets the newest epoch pass and names both epochs otherwise", () => {
    refuseStale({ epoch: 3 }, 3, "call");

    expect(() => refuseStale({ epoch: 3 }, 2, "call x")).toThrow(
      "call x refused: epoch 2 is superseded by 3",
    );
  });
});
