import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import type { Dispatcher } from "undici";
import type { SessionSnapshot } from "../../../protocol/snapshot.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { AppError, codeOf, describeError, isAbort } from "../../../runtime/errors.ts";
import type { Logger } from "../../../runtime/logger.ts";
import type { AuditLog } from "../../audit.ts";
import type { Exchange } from "../../exchange.ts";
import { type Outcome, outcomeOf } from "../../metrics.ts";
import { Redactor } from "../../redaction.ts";
import type { SandboxCaller, SandboxTokenCheck } from "../../sandbox-token.ts";
import type { SessionCredentials } from "../../session-credentials.ts";
import type { SessionSnapshots } from "../../session-snapshots.ts";
import { unusableAnswer, upstreamError } from "../../upstream-errors.ts";
import { parseServerUrl } from "../../url-match.ts";
import { whileAllowed } from "../../use-watch.ts";
import { GIT_TIMEOUTS, type GitSizes } from "./limits.ts";
import { type AnswerKind, relayPackets } from "./packet-relay.ts";
import { type PushRequest, pushReport, readPush } from "./receive-pack.ts";
import { refusedRefs } from "./ref-policy.ts";
import { answerType, fetchRefusal, pushRefusal, refsRefusal, sentenceOf } from "./refusals.ts";
import type { GitRoute } from "./routes.ts";
import { askGitHost, type GitAsk, type Upstream } from "./upstream.ts";

export interface GitRoleDeps {
  tokens: Pick<SandboxTokenCheck, "confirm">;
  snapshots: Pick<SessionSnapshots, "get">;
  credentials: Pick<SessionCredentials, "forRepository">;
  audit: Pick<AuditLog, "check">;
  agent: Dispatcher;
  sizes: GitSizes;
  clock: Clock;
  logger: Logger;
  onRedaction: () => void;
}

type Repository = SessionSnapshot["repositories"][number];

/** One request of git, and all that is known of what it is about. */
interface Visit {
  exchange: Exchange;
  caller: SandboxCaller;
  route: GitRoute;
  snapshot: SessionSnapshot;
  repository: Repository;
  /** Aborts when the caller is gone or the time for the whole is over. */
  signal: AbortSignal;
}

/**
 * `/git/{repository}/…` (docs/design/security.md#git): smart HTTP for the repositories of the
 * session. Where to comes from its snapshot, as whom from its vaults; a push is read as far as its
 * commands and then streams through, as does every answer.
 */
export class GitRole {
  readonly #deps: GitRoleDeps;

  constructor(deps: GitRoleDeps) {
    this.#deps = deps;
  }

  /**
   * Throws NOT_FOUND for a repository the session does not have, or what reading its snapshot throws.
   * Whatever fails later is told to git in its own words.
   */
  async serve(exchange: Exchange, caller: SandboxCaller, route: GitRoute): Promise<Outcome> {
    const { claims } = caller;
    const snapshot = await this.#deps.snapshots.get(claims.ten, claims.sub);
    const repository = snapshot.repositories.find(({ name }) => name === route.repository);
    if (repository === undefined) {
      throw new AppError("NOT_FOUND", `the session has no repository "${route.repository}"`);
    }
    Object.assign(exchange.use, { serverRef: repository.name, method: methodOf(route) });
    return await this.#within(
      GIT_TIMEOUTS.transferMs,
      "the transfer takes longer than an hour",
      exchange.signal,
      async (signal) => {
        const visit = { exchange, caller, route, snapshot, repository, signal };
        return await this.#whileBound(visit, async (ended) => {
          return await this.#visit({ ...visit, signal: AbortSignal.any([signal, ended]) });
        });
      },
    );
  }

  /** A push that began before its session, its binding or its credential was taken away does not land. */
  async #whileBound(
    visit: Visit,
    work: (ended: AbortSignal) => Promise<Outcome>,
  ): Promise<Outcome> {
    const { tokens, clock } = this.#deps;
    return await whileAllowed(
      clock,
      {
        confirm: async () => await tokens.confirm(visit.caller.claims),
        checkCredential: async () => void (await this.#credentialOf(visit)),
        endOf: (problem) => brokenOff(visit.repository, problem),
      },
      work,
    );
  }

  /** Aborts the signal of `work` with TIMEOUT after `ms`; it is for `work` to end then. */
  async #within<T>(
    ms: number,
    message: string,
    parent: AbortSignal,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const late = new AbortController();
    const stopTimer = this.#deps.clock.timer(ms, () =>
      late.abort(new AppError("TIMEOUT", message)),
    );
    try {
      return await work(AbortSignal.any([parent, late.signal]));
    } finally {
      stopTimer();
    }
  }

  async #visit(visit: Visit): Promise<Outcome> {
    const { exchange, route } = visit;
    if (route.step === "exchange" && route.service === "git-receive-pack") {
      return await this.#push(visit);
    }
    try {
      if (route.step === "refs") await this.#refs(visit);
      else await this.#fetch(visit);
      return "ok";
    } catch (error) {
      // Half a pack cannot be followed by words.
      if (exchange.answered || isGone(exchange, error)) throw error;
      const text = sentenceOf(error);
      const body = route.step === "refs" ? refsRefusal(route.service, text) : fetchRefusal(text);
      await this.#answer(visit, body);
      return this.#failed(visit, error);
    }
  }

  async #refs(visit: Visit): Promise<void> {
    const { route, repository } = visit;
    if (route.service === "git-receive-pack" && repository.pushBranches.length === 0) {
      throw new AppError(
        "FORBIDDEN",
        `policy: this session may not push to repository "${repository.name}"; ` +
          "its pushBranches name no branch",
      );
    }
    const upstream = await this.#upstream(visit);
    await this.#pass(visit, upstream, "refs", await this.#ask(visit, upstream, {}));
  }

  async #fetch(visit: Visit): Promise<void> {
    const { exchange } = visit;
    checkType(visit);
    const upstream = await this.#upstream(visit);
    const answer = await this.#ask(visit, upstream, {
      body: limited(
        bodyOf(exchange, visit.signal),
        this.#deps.sizes.fetchRequest,
        "the request of git",
      ),
      contentLength: exchange.header("content-length"),
      contentEncoding: encodingOf(exchange),
    });
    await this.#pass(visit, upstream, "fetch", answer);
  }

  async #push(visit: Visit): Promise<Outcome> {
    const { exchange, repository, signal } = visit;
    let push: PushRequest | undefined;
    try {
      checkType(visit);
      const isPacked = encodingOf(exchange) !== undefined;
      const late = new AbortController();
      const raw = bodyOf(exchange, AbortSignal.any([signal, late.signal]));
      const body = limited(isPacked ? unpacked(raw) : raw, this.#deps.sizes.push, "the push");
      push = await this.#commands(body, late);
      exchange.use.refs = push.commands.map(({ ref, newId }) => `${ref} ${newId}`);
      const refused = refusedRefs(push, repository.pushBranches);
      if (refused.size > 0) {
        exchange.use.error = "FORBIDDEN";
        await this.#answerPush(visit, push, (ref) => refused.get(ref) ?? "");
        return "refused";
      }
      // What can have an effect must leave a trace.
      this.#deps.audit.check({ hasEffect: push.hasPack });
      const upstream = await this.#upstream(visit);
      const answer = await this.#ask(visit, upstream, {
        body: push.hasPack ? joined(push.read, body) : joined(push.read),
        contentLength: isPacked ? undefined : exchange.header("content-length"),
      });
      await this.#pass(visit, upstream, "push", answer);
      return "ok";
    } catch (error) {
      if (isGone(exchange, error)) throw error;
      await this.#answerPush(visit, push, () => sentenceOf(error));
      return this.#failed(visit, error);
    }
  }

  /** Whoever sends them slowly holds a place at the edge before anything is decided. */
  async #commands(body: AsyncIterator<Buffer>, late: AbortController): Promise<PushRequest> {
    const stopTimer = this.#deps.clock.timer(GIT_TIMEOUTS.commandsMs, () => {
      late.abort(new AppError("TIMEOUT", "the commands of the push did not come within a minute"));
    });
    try {
      return await readPush(body);
    } finally {
      stopTimer();
    }
  }

  async #credentialOf({ caller, snapshot, repository }: Visit) {
    const url = parseServerUrl(repository.url.replace(/\.git$/, ""));
    const found = await this.#deps.credentials.forRepository(snapshot, caller.session, url);
    return { url, ...found };
  }

  async #upstream(visit: Visit): Promise<Upstream> {
    const { exchange, repository } = visit;
    const { url, credential, nearMisses } = await this.#credentialOf(visit);
    const onHit = () => {
      exchange.use.redactions += 1;
      this.#deps.onRedaction();
    };
    return {
      what: `repository "${repository.name}" on ${url.host}`,
      url: repository.url,
      credential,
      nearMisses,
      redactor: new Redactor(credential?.known, onHit, { keepsLength: true }),
    };
  }

  async #ask(
    { exchange, route, signal }: Visit,
    upstream: Upstream,
    body: Pick<GitAsk, "body" | "contentLength" | "contentEncoding">,
  ): Promise<Dispatcher.ResponseData> {
    const { use } = exchange;
    use.allowedBy = route.service === "git-receive-pack" ? "pushBranches" : "repositories";
    if (upstream.credential !== undefined) {
      use.credId = upstream.credential.id;
      use.credVersion = upstream.credential.version;
    }
    const gitProtocol = exchange.header("git-protocol");
    const answer = await askGitHost(this.#deps.agent, upstream, {
      route,
      gitProtocol,
      signal,
      ...body,
    });
    use.upstreamStatus = answer.statusCode;
    return answer;
  }

  async #pass(
    { exchange, route, signal }: Visit,
    { what, redactor }: Upstream,
    kind: AnswerKind,
    answer: Dispatcher.ResponseData,
  ): Promise<void> {
    const { sizes } = this.#deps;
    const most = { refs: sizes.refs, fetch: sizes.fetchAnswer, push: sizes.pushAnswer }[kind];
    const chunks = limited(answer.body, most, `the answer of ${what}`, unusableAnswer);
    try {
      exchange.start(200, headersOf(route));
      for await (const packets of relayPackets(chunks, redactor, kind)) {
        await exchange.write(packets, signal);
      }
    } catch (error) {
      throw upstreamError(what, error);
    }
    exchange.end();
  }

  /** Also after the beginning of an answer: so far it has whole packets. */
  async #answerPush(
    visit: Visit,
    push: PushRequest | undefined,
    reasonOf: (ref: string) => string,
  ): Promise<void> {
    await this.#answer(
      visit,
      push === undefined ? pushRefusal(reasonOf("")) : pushReport(push, reasonOf),
    );
  }

  /**
   * Git sends its whole pack before it cares for a success: what is left of the request is taken in,
   * or it would see a broken connection instead of the reason.
   */
  async #answer({ exchange, route }: Visit, body: Buffer): Promise<void> {
    const late = "the reason of a refusal is not taken";
    if (!exchange.answered) exchange.start(200, headersOf(route));
    await this.#within(GIT_TIMEOUTS.restMs, late, exchange.signal, async (until) => {
      await exchange.write(body, until);
      const most = exchange.bytesIn + this.#deps.sizes.push;
      const rest = exchange.body(most, GIT_TIMEOUTS.sendIdleMs, until);
      try {
        while ((await rest.next()).done !== true);
        exchange.end();
      } catch {
        // Too much or too slow: it has been told.
        exchange.breakOff();
      }
    });
  }

  #failed({ exchange, repository, route }: Visit, error: unknown): Outcome {
    const outcome = outcomeOf(error);
    exchange.use.error = codeOf(error) ?? "INTERNAL";
    this.#deps.logger.warn(
      {
        sessionId: exchange.use.session,
        repository: repository.name,
        request: methodOf(route),
        code: exchange.use.error,
        err: describeError(error),
      },
      "git request not served",
    );
    return outcome;
  }
}

function brokenOff({ name }: Repository, problem: unknown): AppError {
  const { code, message } =
    problem instanceof AppError ? problem : new AppError("INTERNAL", "it could not be checked");
  const text = `the transfer of repository "${name}" is broken off: ${message}`;
  return new AppError(code, text, { cause: problem, details: { outcome: "unknown" } });
}

function headersOf(route: GitRoute): Record<string, string> {
  return { "content-type": answerType(route), "cache-control": "no-store" };
}

function methodOf({ service, step }: GitRoute): string {
  return step === "refs" ? `${service} refs` : service;
}

function isGone(exchange: Exchange, error: unknown): boolean {
  return exchange.signal.aborted || isAbort(error);
}

function checkType({ exchange, route }: Visit): void {
  const expected = `application/x-${route.service}-request`;
  if (exchange.header("content-type") === expected) return;
  throw new AppError("INPUT_INVALID", `content-type must be ${expected}`);
}

function encodingOf(exchange: Exchange): "gzip" | undefined {
  const encoding = exchange.header("content-encoding");
  if (encoding === undefined || encoding === "identity") return undefined;
  if (encoding === "gzip" || encoding === "x-gzip") return "gzip";
  throw new AppError("INPUT_INVALID", "content-encoding must be gzip, or none");
}

/** Counted by whoever reads it. */
function bodyOf(exchange: Exchange, until: AbortSignal): AsyncGenerator<Buffer> {
  return exchange.body(Number.POSITIVE_INFINITY, GIT_TIMEOUTS.sendIdleMs, until);
}

/** What was packed for the way: policy and git host must read the same bytes. */
function unpacked(body: AsyncIterable<Buffer>): AsyncIterable<Buffer> {
  const gunzip = createGunzip();
  pipeline(Readable.from(body, { objectMode: false }), gunzip, () => {});
  return asBuffers(gunzip);
}

async function* asBuffers(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of stream) yield Buffer.from(chunk);
  } catch (error) {
    if (error instanceof AppError || isAbort(error)) throw error;
    throw new AppError("INPUT_INVALID", "the request is not gzip, as its headers say");
  }
}

async function* joined(head: Buffer, rest?: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  yield head;
  if (rest !== undefined) yield* rest;
}

async function* limited(
  source: AsyncIterable<Uint8Array>,
  limit: number,
  what: string,
  refuse = (message: string) => new AppError("INPUT_TOO_LARGE", message, { details: { limit } }),
): AsyncGenerator<Buffer> {
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > limit) {
      throw refuse(`${what} is larger than ${inWords(limit)}, the most that is passed on`);
    }
    yield Buffer.from(chunk);
  }
}

function inWords(bytes: number): string {
  const mebi = 1024 * 1024;
  return bytes >= mebi ? `${Math.floor(bytes / mebi)} MiB` : `${bytes} bytes`;
}
