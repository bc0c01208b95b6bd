import type { CredentialEntry, CredentialSource } from "../credentials/credential-source.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { BoundedMap } from "./bounded-map.ts";
import { type ProxyMetrics, readOutcome } from "./metrics.ts";
import type { KnownSecret } from "./redaction.ts";
import { matchEntry, type ServerUrl } from "./url-match.ts";

/** Longest a rotated or revoked value may still be used (security §1). */
const CACHE_MS = 5000;
/** A replaced value is still looked for in answers this long: a stream may have begun with it. */
export const PREVIOUS_MS = 600_000;
const MAX_CACHED = 4096;

/** Headers a credential may not be sent in: they would change the request itself. */
const RESERVED_HEADERS = new Set([
  "accept",
  "accept-encoding",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "keep-alive",
  "last-event-id",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

export interface ServerCredential {
  /** `<vault>/<entry>`: for logs and in place of a redacted value. */
  id: string;
  version: string;
  header: string;
  headerValue: Secret;
  known: readonly KnownSecret[];
}

interface CachedValue {
  value: Secret;
  version: string;
  readAt: number;
  previous: { value: Secret; until: number } | undefined;
}

export interface SessionCredentialsDeps {
  source: CredentialSource;
  /** Label of the metric: `kubernetes_secret`, `local_file`. */
  sourceName: string;
  clock: Clock;
  metrics: Pick<ProxyMetrics, "credentialReads">;
}

/** Finds and reads the credential a session has for one MCP server (security §5). */
export class SessionCredentials {
  readonly #deps: SessionCredentialsDeps;
  readonly #values = new BoundedMap<CachedValue>(MAX_CACHED);
  readonly #reading = new Map<string, Promise<CachedValue>>();

  constructor(deps: SessionCredentialsDeps) {
    this.#deps = deps;
  }

  /** Throws CREDENTIAL_NOT_FOUND (with what was nearly meant) or CREDENTIAL_UNAVAILABLE. */
  async forServer(
    snapshot: SessionSnapshot,
    server: { name: string; url: ServerUrl },
  ): Promise<ServerCredential> {
    const match = matchEntry(server.url, snapshot.vaults);
    if (!match.found) throw noEntry(server.name, match.nearMisses);
    const { vault, entry } = match;
    const header = entry.header.toLowerCase();
    if (RESERVED_HEADERS.has(header) || header.startsWith("mcp-")) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `entry "${entry.name}" of credential vault "${vault}" cannot be sent in header "${entry.header}"`,
      );
    }
    const cached = await this.#value(snapshot.tenant, vault, entry);
    const id = `${vault}/${entry.name}`;
    return {
      id,
      version: cached.version,
      header,
      headerValue:
        entry.scheme === "" ? cached.value : new Secret(`${entry.scheme} ${cached.value.reveal()}`),
      known: this.#known(id, entry.scheme, cached),
    };
  }

  async #value(tenant: string, vault: string, entry: CredentialEntry): Promise<CachedValue> {
    const { name, key } = entry.secretRef;
    const place = JSON.stringify([tenant, vault, entry.name, name, key]);
    const cached = this.#values.get(place);
    if (cached !== undefined && this.#deps.clock.monotonic() - cached.readAt <= CACHE_MS) {
      return cached;
    }
    const running = this.#reading.get(place);
    if (running !== undefined) return await running;
    const reading = this.#read(place, { tenant, vault, entry }).finally(() => {
      this.#reading.delete(place);
    });
    this.#reading.set(place, reading);
    return await reading;
  }

  async #read(
    place: string,
    request: { tenant: string; vault: string; entry: CredentialEntry },
  ): Promise<CachedValue> {
    const { source, sourceName, clock, metrics } = this.#deps;
    try {
      const { value, version } = await source.read(request);
      metrics.credentialReads.inc({ source: sourceName, outcome: "ok" });
      const now = clock.monotonic();
      const old = this.#values.get(place);
      const changed = old !== undefined && old.value.reveal() !== value.reveal();
      const previous = changed ? { value: old.value, until: now + PREVIOUS_MS } : old?.previous;
      const cached = { value, version, readAt: now, previous };
      this.#values.set(place, cached);
      return cached;
    } catch (error) {
      metrics.credentialReads.inc({ source: sourceName, outcome: readOutcome(error) });
      throw error;
    }
  }

  #known(id: string, scheme: string, { value, previous }: CachedValue): KnownSecret[] {
    const values = [value.reveal()];
    if (previous !== undefined && this.#deps.clock.monotonic() < previous.until) {
      values.push(previous.value.reveal());
    }
    const plain = scheme.toLowerCase() === "basic" ? values.flatMap(basicParts) : [];
    return [...values, ...plain].map((text) => ({ id, value: text }));
  }
}

/** The pair and the password inside a Basic credential, which a server may echo decoded. */
function basicParts(encoded: string): string[] {
  const pair = Buffer.from(encoded, "base64").toString("utf8");
  const password = pair.slice(pair.indexOf(":") + 1);
  return [pair, password].filter((text) => /^[\x20-\x7e]{8,}$/.test(text));
}

function noEntry(server: string, nearMisses: readonly string[]): AppError {
  const hint =
    nearMisses.length === 0
      ? "no entry of the session's vaults is for this server; add one with its exact URL"
      : `no entry has exactly its URL; nearly: ${nearMisses.join("; ")}`;
  return new AppError(
    "CREDENTIAL_NOT_FOUND",
    `there is no credential for MCP server "${server}": ${hint}`,
  );
}
