import { AppError } from "../../../runtime/errors.ts";
import { BAND, encodeBand, encodePkt, FLUSH } from "./pkt-line.ts";
import type { GitRoute, GitService } from "./routes.ts";

/**
 * Answers in git's own words (docs/design/security.md#git): of a bare status git shows the number
 * alone, so the reason travels in a packet of an answer that is, for HTTP, a success.
 */

/** Git prints `fatal: remote error: <text>`. */
export function refsRefusal(service: GitService, text: string): Buffer {
  return Buffer.concat([encodePkt(`# service=${service}\n`), FLUSH, errorPkt(text)]);
}

export function fetchRefusal(text: string): Buffer {
  return errorPkt(text);
}

/** For a push whose commands are not known, so that no ref can be named; git prints `remote: <text>`. */
export function pushRefusal(text: string): Buffer {
  return encodeBand(BAND.fatal, oneLine(text));
}

export function answerType({ service, step }: Pick<GitRoute, "service" | "step">): string {
  return `application/x-${service}-${step === "refs" ? "advertisement" : "result"}`;
}

/** What a person may read of an error; the text of one that is not ours stays inside. */
export function sentenceOf(error: unknown): string {
  return oneLine(
    error instanceof AppError ? error.message : "internal error; see the log of the edge",
  );
}

function errorPkt(text: string): Buffer {
  return encodePkt(`ERR ${oneLine(text)}\n`);
}

/** One line of visible characters, short enough for a packet. */
export function oneLine(text: string): string {
  return text
    .replaceAll(/[^\x20-\x7e]+/g, " ")
    .trim()
    .slice(0, 2000);
}
