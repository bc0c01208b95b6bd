import type { ModelErrorKind } from "./model.ts";

/** Reads what an endpoint says of a request that failed. Pure. */

/** How much of a message is searched: a sentence, not a whole page. */
const SEARCHED_CHARS = 4000;

/**
 * That the input is larger than the model's context, as endpoints put it: the Messages API itself,
 * Bedrock, vLLM, and the servers that speak like them.
 */
const TOO_LONG = [
  /(?:prompt|input|request|conversation|message history) (?:is|was) too (?:long|large)/,
  /context[ _-]?(?:window|length|limit|size)/,
  /too many (?:input |prompt )?tokens/,
  /(?:input|prompt)(?: token)?(?: count| length|s| tokens)?.{0,80} exceeds? the (?:maximum|model)/,
  /exceeds? the (?:maximum|limit of|allowed) (?:number of )?(?:input |prompt )?(?:tokens|length)/,
  /maximum (?:prompt|input) length/,
  /reduce the (?:length|size) of (?:the |your )?(?:messages|prompt|input|conversation)/,
  /request_too_large/,
];
/** The same words about the size of the answer that was asked for: a shorter context does not help. */
const ANSWER_LIMIT =
  /max_tokens\b.{0,80}(?:maximum allowed|output tokens)|maximum.{0,40}output tokens/;

export function isTooLong(message: string): boolean {
  const text = message.slice(0, SEARCHED_CHARS).toLowerCase();
  return !ANSWER_LIMIT.test(text) && TOO_LONG.some((wording) => wording.test(text));
}

/** Of an answer with an error status. */
export function kindOfStatus(status: unknown, type: unknown, message: string): ModelErrorKind {
  switch (status) {
    case 400:
    case 422:
      return isTooLong(message) ? "too_long" : "refused";
    case 413:
      return "too_long";
    case 401:
    case 403:
      return "unauthorized";
    case 402:
      return "billing";
    case 408:
    case 504:
      return "timeout";
    case 429:
      return "rate_limited";
    case 529:
      return "overloaded";
    default:
      return (
        kindOfType(type) ??
        (isTooLong(message) ? "too_long" : undefined) ??
        (typeof status === "number" && status < 500 ? "refused" : "server_error")
      );
  }
}

/** Of an error event inside a stream: the status said nothing. */
export function kindOfErrorEvent(type: unknown, message: string): ModelErrorKind {
  return kindOfType(type) ?? (isTooLong(message) ? "too_long" : "server_error");
}

function kindOfType(type: unknown): ModelErrorKind | undefined {
  switch (type) {
    case "overloaded_error":
      return "overloaded";
    case "rate_limit_error":
      return "rate_limited";
    case "timeout_error":
      return "timeout";
    case "billing_error":
      return "billing";
    case "authentication_error":
    case "permission_error":
      return "unauthorized";
    case "request_too_large":
      return "too_long";
    default:
      return undefined;
  }
}

/** `retry-after` in either of its forms, seconds or an HTTP date, as ms from now. */
export function retryAfterMs(header: string | null | undefined, now: number): number | undefined {
  const text = header?.trim() ?? "";
  if (/^\d{1,9}(?:\.\d{1,9})?$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Z][a-z]{2},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
