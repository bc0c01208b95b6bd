import { Agent, request } from "undici";
import { z } from "zod";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { Secret } from "../../runtime/secret.ts";
import { connectionProblem, serverProblem } from "./problems.ts";

/** Reading is on the way of a tool call; a slower vault counts as unreachable. From dial to last byte. */
const DEADLINE_MS = 5000;
/** Secrets are at most 1 MiB; JSON around them. */
const MAX_ANSWER_BYTES = 2 * 1024 * 1024;

export interface VaultClientOptions {
  /** `https://host:port` of Vault or OpenBao. */
  address: string;
  /** PEM of the authorities of its certificate; the public ones when absent. */
  ca?: string | undefined;
  /** Namespace inside the vault, where it has them. */
  namespace?: string | undefined;
  /** Where its KV v2 engine is mounted. */
  kvMount: string;
  clock: Clock;
}

/** What a login gives. */
export interface VaultLogin {
  token: Secret;
  leaseSeconds: number;
  /** Batch tokens are not. */
  renewable: boolean;
}

/** One version of a KV v2 secret. */
export interface KvSecret {
  data: Readonly<Record<string, unknown>>;
  /** Counts up with each write. */
  version: number;
}

/** How long something may still be used. */
export interface VaultLease {
  leaseSeconds: number;
  renewable: boolean;
}

const lease = z.object({ lease_duration: z.number(), renewable: z.boolean() });
const loginAnswer = z.object({ auth: lease.extend({ client_token: z.string().min(1) }) });
const renewalAnswer = z.object({ auth: lease });
const readAnswer = z.object({
  data: z.object({
    data: z.record(z.string(), z.unknown()),
    metadata: z.object({ version: z.int().min(1) }),
  }),
});
const writeAnswer = z.object({ data: z.object({ version: z.int().min(1) }) });

interface Call {
  /** What is tried, for messages: "log in", "read …". */
  what: string;
  method: "GET" | "POST" | "PUT";
  path: string;
  token?: Secret;
  body?: object;
}

interface Answer {
  status: number;
  text: string;
}

/**
 * The calls that Drover makes of HashiCorp Vault and OpenBao, which both understand alike.
 *
 * Every method throws CREDENTIAL_UNAVAILABLE: retryable when the vault is sealed, unreachable, slow,
 * busy or broken; not retryable, with what to do, when it refuses, or when its certificate cannot be
 * trusted. `details.status` is the vault's answer, where there was one. No message holds a value or
 * a token.
 */
export class VaultClient {
  readonly #options: VaultClientOptions;
  readonly #agent: Agent;

  constructor(options: VaultClientOptions) {
    this.#options = options;
    this.#agent = new Agent({
      allowH2: false,
      connect: { timeout: DEADLINE_MS, ...(options.ca === undefined ? {} : { ca: options.ca }) },
      maxResponseSize: MAX_ANSWER_BYTES,
    });
  }

  /** Logs in at a JWT or Kubernetes auth method; both take a role and a token. */
  async login(mount: string, role: string, jwt: Secret): Promise<VaultLogin> {
    const answer = await this.#call(loginAnswer, {
      what: `log in with role "${role}" at "auth/${mount}"`,
      method: "POST",
      path: `auth/${segments(mount)}/login`,
      body: { role, jwt: jwt.reveal() },
    });
    const { client_token: token, ...rest } = answer.auth;
    return { token: new Secret(token), ...leaseOf(rest) };
  }

  /** The newest version; null when there is none, or it was deleted or destroyed. */
  async readKv(token: Secret, path: string): Promise<KvSecret | null> {
    const place = this.#placeOf(path);
    const call: Call = { what: `read "${place}"`, method: "GET", path: place, token };
    const answer = await this.#send(call);
    if (answer.status === 404) return null;
    const read = this.#parse(readAnswer, call, answer).data;
    return { data: read.data, version: read.metadata.version };
  }

  /**
   * Writes the version after `cas` (0: the first) and returns its number. Throws CONFLICT when that
   * is not the newest version any more.
   */
  async writeKv(
    token: Secret,
    path: string,
    data: Readonly<Record<string, string>>,
    cas: number,
  ): Promise<number> {
    const place = this.#placeOf(path);
    const body = { data, options: { cas } };
    const call: Call = { what: `write "${place}"`, method: "POST", path: place, token, body };
    const answer = await this.#send(call);
    if (answer.status === 400 && answer.text.includes("check-and-set")) {
      throw new AppError(
        "CONFLICT",
        `cannot ${call.what}: version ${cas} is not its newest; read it again`,
      );
    }
    return this.#parse(writeAnswer, call, answer).data.version;
  }

  /** Lets a renewable token live on; says how long. */
  async renewToken(token: Secret): Promise<VaultLease> {
    const path = "auth/token/renew-self";
    const call: Call = { what: "renew a token", method: "POST", path, token, body: {} };
    return leaseOf((await this.#call(renewalAnswer, call)).auth);
  }

  /** Ends a token and all its leases. */
  async revokeToken(token: Secret): Promise<void> {
    const path = "auth/token/revoke-self";
    await this.#call(undefined, { what: "revoke a token", method: "POST", path, token });
  }

  /** Lets the lease of a dynamic secret live on; the vault may grant less than `seconds`. */
  async renewLease(token: Secret, leaseId: string, seconds: number): Promise<VaultLease> {
    const body = { lease_id: leaseId, increment: seconds };
    const path = "sys/leases/renew";
    const call: Call = { what: "renew a lease", method: "PUT", path, token, body };
    return leaseOf(await this.#call(lease, call));
  }

  /** Ends the lease of a dynamic secret, and with it the secret. */
  async revokeLease(token: Secret, leaseId: string): Promise<void> {
    const body = { lease_id: leaseId };
    const path = "sys/leases/revoke";
    await this.#call(undefined, { what: "revoke a lease", method: "PUT", path, token, body });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  #placeOf(path: string): string {
    return `${segments(this.#options.kvMount)}/data/${segments(path)}`;
  }

  async #call<T>(schema: z.ZodType<T>, call: Call): Promise<T>;
  async #call(schema: undefined, call: Call): Promise<void>;
  async #call<T>(schema: z.ZodType<T> | undefined, call: Call): Promise<T | undefined> {
    const answer = await this.#send(call);
    if (schema !== undefined) return this.#parse(schema, call, answer);
    if (answer.status >= 300) throw serverProblem(call.what, answer);
    return undefined;
  }

  #parse<T>(schema: z.ZodType<T>, call: Call, answer: Answer): T {
    if (answer.status !== 200) throw serverProblem(call.what, answer);
    const parsed = schema.safeParse(parseJson(answer.text));
    if (parsed.success) return parsed.data;
    throw new AppError(
      "CREDENTIAL_UNAVAILABLE",
      `cannot ${call.what}: it answered with something else than a vault does; look at its address`,
      { details: { status: answer.status } },
    );
  }

  async #send({ what, method, path, token, body }: Call): Promise<Answer> {
    const { address, namespace, clock } = this.#options;
    const controller = new AbortController();
    const cancel = clock.timer(DEADLINE_MS, () => controller.abort());
    try {
      const response = await request(`${address.replace(/\/+$/, "")}/v1/${path}`, {
        dispatcher: this.#agent,
        method,
        headers: {
          accept: "application/json",
          // Refused by the vault where a server-side request forgery cannot set it.
          "x-vault-request": "true",
          ...(token === undefined ? {} : { "x-vault-token": token.reveal() }),
          ...(namespace === undefined ? {} : { "x-vault-namespace": namespace }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: controller.signal,
      });
      return { status: response.statusCode, text: await response.body.text() };
    } catch (cause) {
      throw connectionProblem(what, cause, controller.signal.aborted ? DEADLINE_MS : undefined);
    } finally {
      cancel();
    }
  }
}

function leaseOf({ lease_duration, renewable }: z.output<typeof lease>): VaultLease {
  return { leaseSeconds: lease_duration, renewable };
}

/** Encodes a path part by part. Throws INPUT_INVALID for one that would lead elsewhere. */
function segments(path: string): string {
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new AppError("INPUT_INVALID", `"${path}" is no path in a vault`);
  }
  return parts.map(encodeURIComponent).join("/");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
