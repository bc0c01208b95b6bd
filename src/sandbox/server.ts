import type { FastifyRequest } from "fastify";
import { z } from "zod";
import {
  ackRequest,
  type ExecuteResponse,
  executeRequest,
  inputHash,
  type RepositoriesResponse,
  repositoriesRequest,
} from "../protocol/sandbox-api.ts";
import { sandboxToolDeclarations } from "../protocol/sandbox-tools.ts";
import { AUDIENCES, type ExecuteClaims, executeClaims, verifyToken } from "../protocol/tokens.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, ERROR_CODES } from "../runtime/errors.ts";
import { createHttpServer, type HttpServer } from "../runtime/http.ts";
import type { Registry } from "../runtime/metrics.ts";
import { type Binding, bind, refuseStale } from "./binding.ts";
import type { SandboxConfig } from "./config.ts";
import type { Call, Executor } from "./executor.ts";
import type { Journal } from "./journal.ts";
import type { SandboxMetrics } from "./metrics.ts";
import type { RunnerLink } from "./runner-link.ts";

/** The daemon's routes; what they promise is written in protocol/sandbox-api.ts. */
export interface SandboxServerOptions {
  config: Pick<SandboxConfig, "publicKeys" | "sandboxId">;
  executor: Executor;
  runner: Pick<RunnerLink, "set">;
  journal: Pick<Journal, "state" | "append">;
  clock: Clock;
  metrics: SandboxMetrics;
  registry: Registry;
}

/** A model can ask to write files of a few MiB at most; JSON escapes can double them. */
const BODY_LIMIT_BYTES = 16 * 1024 * 1024;
const MAX_WAIT_MS = 60_000;

const waitQuery = z.object({
  waitMs: z.coerce.number().int().min(0).max(MAX_WAIT_MS).optional(),
});
const idParameter = z.object({ id: z.string().min(1).max(256) });

export function createSandboxServer(options: SandboxServerOptions): HttpServer {
  const { executor, runner, metrics, registry, clock } = options;
  const server = createHttpServer({ bodyLimitBytes: BODY_LIMIT_BYTES });
  const gate = new Gate(options);

  server.addHook("onError", async (_request, _reply, error) => {
    const code = codeOf(error);
    metrics.refused.inc({ code: code !== undefined && code in ERROR_CODES ? code : "other" });
  });
  server.get("/healthz", (_request, reply) => {
    const problem = executor.problem;
    return reply.code(problem === undefined ? 200 : 503).send(`${problem ?? "ok"}\n`);
  });
  server.get("/metrics", async (_request, reply) =>
    reply.type(registry.contentType).send(await registry.metrics()),
  );
  const entered = new WeakMap<FastifyRequest, ExecuteClaims>();
  // Before the body is read: code in the sandbox reaches this port too, and has no token.
  const guard = {
    onRequest: async (request: FastifyRequest) => {
      entered.set(request, await gate.enter(request.headers.authorization));
    },
  };
  const guarded = (
    handle: (claims: ExecuteClaims, request: FastifyRequest) => Promise<unknown>,
  ) => {
    return async (request: FastifyRequest) => {
      const claims = entered.get(request);
      if (claims === undefined)
        throw new AppError("UNAUTHENTICATED", "an execute token is required");
      return await handle(claims, request);
    };
  };
  const tools = () => Promise.resolve({ tools: sandboxToolDeclarations() });
  server.get("/v1/tools", guard, guarded(tools));
  server.post("/v1/execute", guard, guarded(execute));
  server.get("/v1/execute/:id", guard, guarded(find));
  server.post("/v1/execute/:id/cancel", guard, guarded(cancel));
  server.post("/v1/ack", guard, guarded(acknowledge));
  server.put("/v1/repositories", guard, guarded(setRepositories));
  return server;

  async function execute(claims: ExecuteClaims, request: FastifyRequest): Promise<ExecuteResponse> {
    const body = parse(executeRequest, request.body, "body");
    const { waitMs } = parse(waitQuery, request.query, "query");
    if (body.epoch !== claims.epoch) {
      throw new AppError("FORBIDDEN", "the request's epoch is not that of the execute token");
    }
    if (body.inputHash !== inputHash(body.name, body.input)) {
      throw new AppError("INPUT_INVALID", "`inputHash` is not the hash of name and input");
    }
    const call = executor.execute(body, () => gate.refuseStale(claims, `call ${body.id}`));
    return await stateOf(clock, call, waitMs);
  }

  async function find(_claims: ExecuteClaims, request: FastifyRequest): Promise<ExecuteResponse> {
    const { id } = parse(idParameter, request.params, "path");
    const { waitMs } = parse(waitQuery, request.query, "query");
    const call = executor.find(id);
    if (call === undefined) throw new AppError("NOT_FOUND", `call ${id} was never seen here`);
    return await stateOf(clock, call, waitMs ?? 0);
  }

  async function cancel(claims: ExecuteClaims, request: FastifyRequest): Promise<ExecuteResponse> {
    const { id } = parse(idParameter, request.params, "path");
    gate.refuseStale(claims, `cancelling call ${id}`);
    return { id, state: "done", result: await executor.cancel(id) };
  }

  async function acknowledge(claims: ExecuteClaims, request: FastifyRequest) {
    const { ids } = parse(ackRequest, request.body, "body");
    gate.refuseStale(claims, "acknowledging results");
    await executor.ack(ids);
    return {};
  }

  async function setRepositories(
    claims: ExecuteClaims,
    request: FastifyRequest,
  ): Promise<RepositoriesResponse> {
    const body = parse(repositoriesRequest, request.body, "body");
    const { waitMs } = parse(waitQuery, request.query, "query");
    gate.refuseStale(claims, "setting up repositories");
    return await runner.set(body, waitMs);
  }
}

/** The state of the call when it is over, or after `waitMs` (undefined: no limit). */
async function stateOf(
  clock: Clock,
  call: Call,
  waitMs: number | undefined,
): Promise<ExecuteResponse> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const cancel = waitMs === undefined ? () => {} : clock.timer(waitMs, () => resolve(undefined));
  try {
    const result = call.result ?? (await Promise.race([call.done, late]));
    return result === undefined
      ? { id: call.id, state: "started" }
      : { id: call.id, state: "done", result };
  } finally {
    cancel();
  }
}

/** Lets in whoever shows a valid execute token of the session this daemon is bound to. */
class Gate {
  readonly #options: SandboxServerOptions;
  #binding: Binding | undefined;
  /** The binding the journal is known to hold. */
  #durable: Binding | undefined;

  constructor(options: SandboxServerOptions) {
    this.#options = options;
    this.#binding = options.journal.state.binding;
    this.#durable = this.#binding;
  }

  /** The verified claims. The binding and a raised epoch are on the disk when it resolves. */
  async enter(authorization: string | undefined): Promise<ExecuteClaims> {
    const { config, clock, journal } = this.#options;
    const token = /^Bearer (\S+)$/.exec(authorization ?? "")?.[1];
    if (token === undefined) {
      throw new AppError("UNAUTHENTICATED", "an execute token is required");
    }
    const claims = await verifyToken(
      config.publicKeys,
      AUDIENCES.execute,
      executeClaims,
      token,
      clock.now(),
    );
    const binding = bind(this.#binding, config.sandboxId, claims);
    // In memory first: a second caller must not slip in while the disk is written.
    this.#binding = binding;
    if (binding !== this.#durable) {
      await recordBinding(journal, binding);
      this.#durable = binding;
    }
    return claims;
  }

  refuseStale(claims: ExecuteClaims, what: string): void {
    if (this.#binding !== undefined) refuseStale(this.#binding, claims.epoch, what);
  }
}

async function recordBinding(journal: Pick<Journal, "append">, binding: Binding): Promise<void> {
  try {
    await journal.append({ t: "bound", ...binding });
  } catch (cause) {
    throw new AppError("UNAVAILABLE", "the journal cannot be written", { cause, retryable: true });
  }
}

/** Throws INPUT_INVALID that names the fields. */
function parse<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    (issue) => `\`${[where, ...issue.path].join(".")}\`: ${issue.message}`,
  );
  throw new AppError("INPUT_INVALID", problems.join("; "));
}
