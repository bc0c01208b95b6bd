import { readFile } from "node:fs/promises";
import { Agent, request } from "undici";
import { z } from "zod";
import { AppError } from "../../runtime/errors.ts";
import type { SecretReader } from "./kubernetes-secret-source.ts";

/** Reading is on the way of a tool call; a slower API server counts as unreachable. */
const TIMEOUT_MS = 5000;
/** Secrets are at most 1 MiB; base64 and metadata on top. */
const MAX_ANSWER_BYTES = 2 * 1024 * 1024;

const secretBody = z.object({
  metadata: z.object({ resourceVersion: z.string() }),
  data: z.record(z.string(), z.string()).optional(),
});

export interface SecretClientOptions {
  /** `https://host:port` of the Kubernetes API. */
  server: string;
  /** Projected service account token; read at each call, because the kubelet renews it. */
  tokenFile: string;
  /** PEM of the API server's certificate authority. */
  ca: string;
}

/** `get` of one Secret over plain HTTPS; small on purpose, so that the proxy needs no API library. */
export class SecretClient implements SecretReader {
  readonly #options: SecretClientOptions;
  readonly #agent: Agent;

  constructor(options: SecretClientOptions) {
    this.#options = options;
    this.#agent = new Agent({
      allowH2: false,
      connect: { ca: options.ca, timeout: TIMEOUT_MS },
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
      maxResponseSize: MAX_ANSWER_BYTES,
    });
  }

  async getSecret(namespace: string, name: string, signal?: AbortSignal) {
    const place = `secret "${name}" in namespace "${namespace}"`;
    const { status, text } = await this.#get(namespace, name, place, signal);
    if (status === 404) return null;
    if (status !== 200) throw unreadable(place, status);
    const parsed = secretBody.safeParse(parseJson(text));
    if (!parsed.success) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `${place} cannot be read: the Kubernetes API answered with something else`,
      );
    }
    return {
      resourceVersion: parsed.data.metadata.resourceVersion,
      data: parsed.data.data ?? {},
    };
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #get(namespace: string, name: string, place: string, signal: AbortSignal | undefined) {
    try {
      const token = (await readFile(this.#options.tokenFile, "utf8")).trim();
      const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
      const answer = await request(new URL(path, this.#options.server), {
        dispatcher: this.#agent,
        headers: { accept: "application/json", authorization: `Bearer ${token}` },
        signal: signal ?? null,
      });
      return { status: answer.statusCode, text: await answer.body.text() };
    } catch (cause) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `${place} cannot be read: the Kubernetes API does not answer`,
        { cause, retryable: true },
      );
    }
  }
}

function unreadable(place: string, status: number): AppError {
  if (status === 401 || status === 403) {
    return new AppError(
      "CREDENTIAL_UNAVAILABLE",
      `${place} cannot be read: the harness pool's service account may not get it; ` +
        "grant `get` on this name with a Role (resourceNames) and a RoleBinding",
      { details: { status } },
    );
  }
  return new AppError(
    "CREDENTIAL_UNAVAILABLE",
    `${place} cannot be read: the Kubernetes API answered ${status}`,
    { retryable: true, details: { status } },
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
