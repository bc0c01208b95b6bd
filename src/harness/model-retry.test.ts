import { expect, it } from "@jest/globals";
import { ModelError, type ModelErrorKind } from "./model.ts";
import { decideRetry } from "./model-retry.ts";

const rng = { next: () => 1 };

it.each<[ModelErrorKind, number, number | undefined, unknown]>([
  ["overloaded", 1, undefined, { kind: "retry", afterMs: 1000 }],
  ["overloaded", 4, undefined, { kind: "retry", afterMs: 8000 }],
  ["overloaded", 8, undefined, { kind: "give_up", errorType: "model_overloaded_error" }],
  ["rate_limited", 1, 7000, { kind: "retry", afterMs: 7000 }],
  ["rate_limited", 1, 90_000, { kind: "retry", afterMs: 90_000 }],
  ["rate_limited", 1, 900_000, { kind: "retry", afterMs: 900_000 }],
  [
    "rate_limited",
    1,
    3_600_000,
    {
      kind: "give_up",
      errorType: "model_rate_limited_error",
      why: expect.stringContaining("3600 s, longer than the 900 s"),
    },
  ],
  ["server_error", 6, undefined, { kind: "give_up", errorType: "model_request_failed_error" }],
  ["malformed", 2, undefined, { kind: "retry" }],
  ["malformed", 3, undefined, { kind: "give_up" }],
  ["refused", 1, undefined, { kind: "give_up", errorType: "model_request_failed_error" }],
  ["billing", 1, undefined, { kind: "give_up", errorType: "billing_error" }],
  ["too_long", 1, undefined, { kind: "give_up", errorType: "compaction_limit_reached_error" }],
])("after %s, failure %i, wish %s", (kind, failures, wish, want) => {
  expect(decideRetry(new ModelError(kind, "x", wish), failures, rng)).toMatchObject(
    want as Record<string, unknown>,
  );
});
