import { describe, expect, it } from "@jest/globals";
import { isTooLong, kindOfErrorEvent, kindOfStatus, retryAfterMs } from "./model-failures.ts";

describe("a context that does not fit", () => {
  it.each([
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000, decrease input length or `max_tokens` and try again",
    "Input is too long for requested model.",
    "ValidationException: Input is too long.",
    "This model's maximum context length is 131072 tokens. However, your messages resulted in 140000 tokens.",
    "The input (140000 tokens) is longer than the model's context length (131072 tokens).",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "the request exceeds the available context size, try increasing it",
    "context_length_exceeded",
    "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
    "Too many input tokens",
    "Please reduce the length of the messages or completion.",
    "Request is too large",
    "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
  ])("is seen in: %s", (message) => {
    expect(isTooLong(message)).toBe(true);
    expect(kindOfStatus(400, "invalid_request_error", message)).toBe("too_long");
    expect(kindOfErrorEvent("invalid_request_error", message)).toBe("too_long");
  });

  it.each([
    "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens for this model",
    "messages.1.content: Input should be a valid list",
    "tools.0.custom.name: String should match pattern",
    "messages: text content blocks must be non-empty",
    "temperature: range: 0..1",
    "`tool_use` ids were found without `tool_result` blocks",
  ])("is not seen in: %s", (message) => {
    expect(kindOfStatus(400, "invalid_request_error", message)).toBe("refused");
  });

  it("is what status 413 says, and the type in a stream", () => {
    expect(kindOfStatus(413, undefined, "")).toBe("too_long");
    expect(kindOfErrorEvent("request_too_large", "")).toBe("too_long");
  });
});

describe("retry-after", () => {
  const now = Date.UTC(2026, 0, 1, 12, 0, 0);

  it.each([
    ["0", 0],
    ["90", 90_000],
    ["1.5", 1500],
    ["Thu, 01 Jan 2026 12:02:00 GMT", 120_000],
    ["Thu, 01 Jan 2026 11:00:00 GMT", 0],
    ["soon", undefined],
    ["-1", undefined],
    ["2026", 2_026_000],
    ["", undefined],
    [null, undefined],
  ])("%j is %s ms", (header, want) => {
    expect(retryAfterMs(header, now)).toBe(want);
  });
});
