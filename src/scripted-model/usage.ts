import type { MessagesRequest } from "./request.ts";

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cache_creation_input_tokens: number;
  cache_read_input_tokens: number;
}

/** Four characters of JSON are one token: close enough, and the same everywhere. */
export function estimateTokens(value: unknown): number {
  return Math.ceil((JSON.stringify(value) ?? "").length / 4);
}

/** What counts towards the input. */
export interface CountedRequest {
  messages: MessagesRequest["messages"];
  system?: MessagesRequest["system"] | undefined;
  tools?: MessagesRequest["tools"] | undefined;
}

export function requestTokens(request: CountedRequest): number {
  return (
    estimateTokens(request.tools ?? []) +
    estimateTokens(request.system ?? "") +
    estimateTokens(request.messages)
  );
}

/**
 * Input tokens as the real API splits them, without a cache: what precedes the last breakpoint
 * counts as cached, and of that, what precedes the last assistant message as read from the cache,
 * because the request before this one ended there.
 */
export function usageOf(request: CountedRequest, outputTokens: number): Usage {
  const total = requestTokens(request);
  if (!marked(request)) {
    return {
      input_tokens: total,
      output_tokens: outputTokens,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
    };
  }
  const { messages } = request;
  const lastAnswer = messages.findLastIndex((message) => message.role === "assistant");
  const read =
    lastAnswer < 0
      ? 0
      : Math.min(total, requestTokens({ ...request, messages: messages.slice(0, lastAnswer) }));
  return {
    input_tokens: 0,
    output_tokens: outputTokens,
    cache_creation_input_tokens: total - read,
    cache_read_input_tokens: read,
  };
}

function marked(request: CountedRequest): boolean {
  return request.messages.some(
    ({ content }) =>
      typeof content !== "string" &&
      content.some((block) => "cache_control" in block && block.cache_control !== undefined),
  );
}
