import { Readable } from "node:stream";
import { type Dispatcher, request } from "undici";
import { AppError } from "../../../runtime/errors.ts";
import { VERSION } from "../../../runtime/version.ts";
import { TIMEOUTS } from "../../limits.ts";
import type { Redactor } from "../../redaction.ts";
import type { SessionCredential } from "../../session-credentials.ts";
import {
  checkAnswer,
  discardBody,
  oneHeader,
  unusableAnswer,
  upstreamError,
} from "../../upstream-errors.ts";
import { GIT_SIZES, GIT_TIMEOUTS } from "./limits.ts";
import { answerType, oneLine } from "./refusals.ts";
import type { GitRoute } from "./routes.ts";

/** A repository of the session, and by which credential it is asked. */
export interface Upstream {
  /** For people: which repository on which host. */
  what: string;
  /** From the session's snapshot, never from a request; without a slash at its end. */
  url: string;
  /** Undefined: it is asked anonymously. */
  credential: SessionCredential | undefined;
  /** Entries that were nearly for it. */
  nearMisses: readonly string[];
  redactor: Redactor;
}

export interface GitAsk {
  route: GitRoute;
  /** Only `version=1` and `version=2` are passed on. */
  gitProtocol: string | undefined;
  /** Of an exchange. */
  body?: AsyncIterable<Buffer>;
  contentLength?: string | undefined;
  contentEncoding?: "gzip" | undefined;
  signal: AbortSignal;
}

/**
 * Asks the git host and resolves to an answer of the expected kind. No redirect is followed. Throws
 * UPSTREAM_REFUSED that says why the host refuses, ADDRESS_REFUSED, UNAVAILABLE or TIMEOUT.
 */
export async function askGitHost(
  agent: Dispatcher,
  upstream: Upstream,
  ask: GitAsk,
): Promise<Dispatcher.ResponseData> {
  const { service, step } = ask.route;
  const isRefs = step === "refs";
  let answer: Dispatcher.ResponseData;
  try {
    answer = await request(
      isRefs ? `${upstream.url}/info/refs?service=${service}` : `${upstream.url}/${service}`,
      {
        method: isRefs ? "GET" : "POST",
        dispatcher: agent,
        headers: headersOf(upstream, ask),
        body: ask.body === undefined ? null : Readable.from(ask.body, { objectMode: false }),
        signal: ask.signal,
        headersTimeout: GIT_TIMEOUTS.headersMs,
        bodyTimeout: TIMEOUTS.bodyIdleMs,
      },
    );
    checkAnswer(upstream.what, answer);
  } catch (error) {
    throw upstreamError(upstream.what, error);
  }
  if (answer.statusCode !== 200) throw await refusal(upstream, answer);
  if (oneHeader(answer.headers, "content-type") !== answerType(ask.route)) {
    discardBody(answer);
    throw unusableAnswer(`${upstream.what} does not speak git's smart HTTP`);
  }
  return answer;
}

/** From zero: nothing of the sandbox's request but the version of the protocol and the body's form. */
function headersOf({ credential }: Upstream, ask: GitAsk): Record<string, string> {
  const { route, gitProtocol, contentLength, contentEncoding } = ask;
  const headers: Record<string, string> = {
    accept: route.step === "refs" ? "*/*" : answerType(route),
    // Hosts tell git from browsers by the beginning.
    "user-agent": `git/2.0 (drover ${VERSION})`,
  };
  if (gitProtocol === "version=1" || gitProtocol === "version=2") {
    headers["git-protocol"] = gitProtocol;
  }
  if (route.step === "exchange") {
    headers["content-type"] = `application/x-${route.service}-request`;
    if (contentEncoding !== undefined) headers["content-encoding"] = contentEncoding;
    if (contentLength !== undefined) headers["content-length"] = contentLength;
  }
  if (credential !== undefined) {
    const pair = Buffer.from(`x-access-token:${credential.value.reveal()}`);
    headers["authorization"] = `Basic ${pair.toString("base64")}`;
  }
  return headers;
}

async function refusal(upstream: Upstream, answer: Dispatcher.ResponseData): Promise<AppError> {
  const { what, credential, nearMisses } = upstream;
  const { statusCode } = answer;
  const words = await wordsOf(upstream, answer);
  const said = words === "" ? `status ${statusCode}` : `status ${statusCode}: ${words}`;
  // Hosts answer 404 for what the caller may not see.
  if (statusCode !== 401 && statusCode !== 403 && statusCode !== 404) {
    return unusableAnswer(`${what} refuses (${said})`);
  }
  const nearly = nearMisses.length === 0 ? "" : `; nearly: ${nearMisses.join("; ")}`;
  return new AppError(
    "UPSTREAM_REFUSED",
    credential === undefined
      ? `${what} refuses (${said}); no entry of the session's vaults is for it${nearly}`
      : `${what} does not accept credential "${credential.id}" (${said})`,
  );
}

/** What the host says in plain text, without what it must not tell. */
async function wordsOf(upstream: Upstream, answer: Dispatcher.ResponseData): Promise<string> {
  const type = oneHeader(answer.headers, "content-type") ?? "";
  if (!/^text\/plain\b/i.test(type)) {
    discardBody(answer);
    return "";
  }
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body) {
      const bytes = Buffer.from(chunk);
      size += bytes.length;
      if (size > GIT_SIZES.errorText) break;
      chunks.push(bytes);
    }
  } catch {
    return "";
  }
  return oneLine(upstream.redactor.text(Buffer.concat(chunks).toString("latin1"))).slice(0, 500);
}
