import { Readable } from "node:stream";
import { type Dispatcher, request } from "undici";
import type { SessionIdentity } from "../../../credentials/credential-source.ts";
import { AppError } from "../../../runtime/errors.ts";
import type { Exchange } from "../../exchange.ts";
import { SIZES, TIMEOUTS } from "../../limits.ts";
import type { Outcome } from "../../metrics.ts";
import type { ModelCredential, PoolModelKey } from "../../model-key.ts";
import { Redactor } from "../../redaction.ts";
import type { SessionCredentials } from "../../session-credentials.ts";
import type { SessionSnapshots } from "../../session-snapshots.ts";
import type { StreamWatch } from "../../stream-watch.ts";
import type { Caller } from "../../token.ts";
import {
  checkAnswer,
  checkCharset,
  discardBody,
  oneHeader,
  upstreamError,
} from "../../upstream-errors.ts";
import { readAnswer, relayModelEvents } from "./answer.ts";
import {
  buildModelHeaders,
  checkForeignCredentials,
  checkModelQuery,
  isPassedModelHeader,
  modelErrorBody,
} from "./policy.ts";

type Answer = Dispatcher.ResponseData;

const WHAT = "the model endpoint";

export interface ModelRoleDeps {
  baseUrl: string;
  agent: Dispatcher;
  snapshots: Pick<SessionSnapshots, "get">;
  credentials: Pick<SessionCredentials, "forModel">;
  poolKey: Pick<PoolModelKey, "get">;
  watch: StreamWatch;
  onRedaction: () => void;
}

/**
 * Passes a request to the model endpoint and adds the key. The request and event streams
 * are passed on at the pace of their reader, other answers when they are complete; and the endpoint is
 * left as soon as the harness is gone.
 */
export class ModelRole {
  readonly #deps: ModelRoleDeps;

  constructor(deps: ModelRoleDeps) {
    this.#deps = deps;
  }

  async serve(exchange: Exchange, caller: Caller, route: string): Promise<Outcome> {
    const { use } = exchange;
    use.serverRef = "model";
    use.method = route;
    checkForeignCredentials(exchange.headers, exchange.query);
    const query = checkModelQuery(exchange.query);
    const headers = buildModelHeaders({
      contentType: exchange.header("content-type"),
      version: exchange.header("anthropic-version"),
      beta: exchange.header("anthropic-beta"),
      accept: exchange.header("accept"),
    });
    const length = exchange.declaredLength(SIZES.modelRequest);
    if (length !== undefined) headers["content-length"] = String(length);
    const credential = await this.#credential(caller);
    if (credential !== undefined) {
      headers["x-api-key"] = credential.value.reveal();
      use.credId = credential.id;
      use.credVersion = credential.version;
    }
    use.allowedBy = "route";
    const redactor = new Redactor(credential?.known, () => {
      use.redactions += 1;
      this.#deps.onRedaction();
    });
    const target = {
      what: WHAT,
      credential,
      readCredential: async (by: SessionIdentity) =>
        await this.#credential({ ...caller, session: by }),
    };
    return await this.#deps.watch.during({ caller, target, kind: "answer" }, async (ended) => {
      const until = AbortSignal.any([exchange.signal, ended]);
      try {
        const answer = await this.#ask(exchange, `${route}${query}`, headers, until);
        await pass(exchange, answer, redactor, until);
        return answer.statusCode < 400 ? "ok" : "upstream_error";
      } catch (error) {
        throw ended.aborted ? ended.reason : error;
      }
    });
  }

  /** The session's own key; without one the pool's. One that cannot be read is not replaced. */
  async #credential({ claims, session }: Caller): Promise<ModelCredential | undefined> {
    const snapshot = await this.#deps.snapshots.get(claims.ten, claims.sub);
    const own = await this.#deps.credentials.forModel(snapshot, session);
    return own ?? (await this.#deps.poolKey.get());
  }

  async #ask(
    exchange: Exchange,
    path: string,
    headers: Record<string, string>,
    until: AbortSignal,
  ) {
    try {
      const answer = await request(`${this.#deps.baseUrl.replace(/\/$/, "")}${path}`, {
        method: "POST",
        dispatcher: this.#deps.agent,
        headers,
        body: Readable.from(exchange.body(SIZES.modelRequest), { objectMode: false }),
        signal: until,
        headersTimeout: TIMEOUTS.modelHeadersMs,
      });
      exchange.use.upstreamStatus = answer.statusCode;
      checkAnswer(WHAT, answer);
      return answer;
    } catch (error) {
      throw upstreamError(WHAT, error);
    }
  }
}

async function pass(
  exchange: Exchange,
  answer: Answer,
  redactor: Redactor,
  until: AbortSignal,
): Promise<void> {
  const { statusCode, body } = answer;
  const headers = passedHeaders(answer.headers, redactor);
  try {
    checkCharset(WHAT, answer);
    if (/^text\/event-stream\b/i.test(oneHeader(answer.headers, "content-type") ?? "")) {
      exchange.start(statusCode, headers);
      await relayModelEvents(body, exchange, redactor, until);
    } else {
      const text = await readAnswer(body, exchange, redactor);
      exchange.start(statusCode, headers);
      await exchange.write(text, until);
    }
  } catch (error) {
    const isOver = exchange.answered || until.aborted;
    if (!(error instanceof AppError) || isOver || statusCode < 400) throw error;
    // The status alone says what the harness must know.
    const told = `status ${statusCode}; what it said of it is not passed on: ${error.message}`;
    exchange.sendJson(statusCode, modelErrorBody(statusCode, error.code, told), headers);
    return;
  } finally {
    discardBody(answer);
  }
  exchange.end();
}

function passedHeaders(
  headers: Record<string, string | string[] | undefined>,
  redactor: Redactor,
): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const name of Object.keys(headers).filter(isPassedModelHeader)) {
    const value = oneHeader(headers, name);
    if (value !== undefined) passed[name] = redactor.text(value);
  }
  return passed;
}
