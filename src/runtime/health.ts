import { createHttpServer, type HttpServer } from "./http.ts";
import type { Registry } from "./metrics.ts";

/** Answers undefined when fine, else one sentence that says what is not ready and why. */
type ReadinessCheck = () => string | undefined;

export interface HealthOptions {
  registry: Registry;
  checks: Record<string, ReadinessCheck>;
}

/**
 * `/livez` (the event loop answers), `/readyz` (every check passes; the body names those that do
 * not) and `/metrics` (Prometheus text). Served on a port of its own in every process.
 */
export function createHealthServer(options: HealthOptions): HttpServer {
  const server = createHttpServer({ bodyLimitBytes: 1024 });
  server.get("/livez", () => "ok\n");
  server.get("/readyz", (_request, reply) => {
    const lines = Object.entries(options.checks).map(([name, check]) => {
      const problem = check();
      return { ok: problem === undefined, text: `[${problem ?? "ok"}] ${name}` };
    });
    return reply
      .code(lines.every((line) => line.ok) ? 200 : 503)
      .type("text/plain")
      .send(`${lines.map((line) => line.text).join("\n")}\n`);
  });
  server.get("/metrics", async (_request, reply) => {
    const text = await options.registry.metrics();
    return reply.type(options.registry.contentType).send(text);
  });
  return server;
}
