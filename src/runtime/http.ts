import fastify, { type FastifyInstance } from "fastify";
import { AppError, describeError, ERROR_CODES, type ErrorCode } from "./errors.ts";

export type HttpServer = FastifyInstance;

export interface HttpServerOptions {
  /** Largest request body in bytes; larger ones get 413. */
  bodyLimitBytes: number;
  /** TLS key and certificate in PEM; plain HTTP when absent. */
  tls?: { key: string; cert: string };
}

/** The JSON every server of ours answers an error with. */
export interface ErrorBody {
  error: { code: ErrorCode; message: string };
}

/** A fastify instance with body limit, JSON errors by code and no request logging (bodies are user content). */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  const common = {
    bodyLimit: options.bodyLimitBytes,
    logger: false as const,
    forceCloseConnections: true,
    // Idle keep-alive connections outlive the client's pool time, so that a reused one is never just closed.
    keepAliveTimeout: 75_000,
  };
  const server = (
    options.tls ? fastify({ ...common, https: options.tls }) : fastify(common)
  ) as FastifyInstance;
  server.setErrorHandler((error, _request, reply) => {
    const { status, body } = errorResponse(error);
    return reply.code(status).send(body);
  });
  server.setNotFoundHandler((request, reply) =>
    reply
      .code(404)
      .send(errorBody("NOT_FOUND", `there is no ${request.method} ${request.url.split("?")[0]}`)),
  );
  return server;
}

function errorBody(code: ErrorCode, message: string): ErrorBody {
  return { error: { code, message } };
}

/** Status and body for any thrown value; the text of an unexpected error stays inside the process. */
export function errorResponse(error: unknown): { status: number; body: ErrorBody } {
  if (error instanceof AppError || isAppErrorLike(error)) {
    return { status: ERROR_CODES[error.code].http, body: errorBody(error.code, error.message) };
  }
  const status = statusOf(error);
  if (status === 413) return { status, body: errorBody("INPUT_TOO_LARGE", describeError(error)) };
  if (status >= 400 && status < 500) {
    return { status, body: errorBody("INPUT_INVALID", describeError(error)) };
  }
  return { status: 500, body: errorBody("INTERNAL", "internal error; see this process's log") };
}

function isAppErrorLike(error: unknown): error is AppError {
  return (
    typeof error === "object" &&
    error !== null &&
    "code" in error &&
    typeof error.code === "string" &&
    error.code in ERROR_CODES
  );
}

function statusOf(error: unknown): number {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return 500;
  return typeof error.statusCode === "number" ? error.statusCode : 500;
}
