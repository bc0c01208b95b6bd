import type {
  CredentialRequest,
  CredentialSource,
  SessionIdentity,
} from "../credentials/credential-source.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, describeError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { BoundedMap } from "./bounded-map.ts";
import { type ProxyMetrics, readOutcome } from "./metrics.ts";
import type { KnownSecret } from "./redaction.ts";
import { matchEntry, type ServerUrl } from "./url-match.ts";

/** Longest a rotated or revoked value may still be used (security §1). */
const CACHE_MS = 5000;
/** Longest a value is used after it was last read, while the vault does not answer (security §6). */
const HELD_MS = 60_000;
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

/** A value read for one use, and all that must not come back from where it is sent. */
export interface SessionCredential {
  /** `<vault>/<entry>`: for logs and in place of a redacted value. */
  id: string;
  version: string;
  value: Secret;
  known: readonly KnownSecret[];
}

export interface ServerCredential extends SessionCredential {
  header: string;
  headerValue: Secret;
}

type VaultEntry = SessionSnapshot["vaults"][number]["entries"][number];

interface CachedValue {
  value: Secret;
  version: string;
  readAt: number;
  previous: { value: Secret; until: number } | undefined;
}

/** What became of an entry when it was last read; never what it is. */
export interface CredentialReport {
  tenant: string;
  vault: string;
  entry: string;
  /** Absent when it was read. */
  failure?: { code: string; message: string };
  version?: string;
}

export interface SessionCredentialsDeps {
  source: CredentialSource;
  /** Told of every read; must not throw. */
  onRead: (report: CredentialReport) => void;
  clock: Clock;
  metrics: Pick<ProxyMetrics, "credentialReads">;
}

/** Finds and reads the credential a session has for what it calls (security §5). */
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
    session: SessionIdentity,
    server: { name: string; url: ServerUrl },
  ): Promise<ServerCredential> {
    const match = matchEntry(server.url, snapshot.vaults, ({ mcpServerUrl }) => mcpServerUrl);
    if (!match.found) throw noEntry(`MCP server "${server.name}"`, match.nearMisses);
    const { vault, entry } = match;
    const header = entry.header.toLowerCase();
    if (RESERVED_HEADERS.has(header) || header.startsWith("mcp-")) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `entry "${entry.name}" of credential vault "${vault}" cannot be sent in header "${entry.header}"`,
      );
    }
    const credential = await this.#read(snapshot.tenant, session, vault, entry);
    const { scheme } = entry;
    return {
      ...credential,
      header,
      headerValue:
        scheme === "" ? credential.value : new Secret(`${scheme} ${credential.value.reveal()}`),
      known: scheme.toLowerCase() === "basic" ? withBasicParts(credential) : credential.known,
    };
  }

  /**
   * Undefined when no entry is for this repository: it is read anonymously. `nearMisses` says what
   * was nearly meant, for the error when that is refused. Throws CREDENTIAL_UNAVAILABLE.
   */
  async forRepository(
    snapshot: SessionSnapshot,
    session: SessionIdentity,
    repository: ServerUrl,
  ): Promise<{ credential?: SessionCredential; nearMisses: readonly string[] }> {
    const match = matchEntry(repository, snapshot.vaults, ({ repositoryUrl }) =>
      repositoryUrl?.replace(/\.git$/, ""),
    );
    if (!match.found) return { nearMisses: match.nearMisses };
    const { vault, entry } = match;
    return {
      credential: await this.#read(snapshot.tenant, session, vault, entry),
      nearMisses: [],
    };
  }

  /** The session's own key for the model endpoint, if it has one. Throws CREDENTIAL_UNAVAILABLE. */
  async forModel(
    snapshot: SessionSnapshot,
    session: SessionIdentity,
  ): Promise<SessionCredential | undefined> {
    for (const { name, entries } of snapshot.vaults) {
      const entry = entries.find(({ modelProvider }) => modelProvider !== undefined);
      if (entry !== undefined) return await this.#read(snapshot.tenant, session, name, entry);
    }
    return undefined;
  }

  async #read(
    tenant: string,
    session: SessionIdentity,
    vault: string,
    entry: VaultEntry,
  ): Promise<SessionCredential> {
    const id = `${vault}/${entry.name}`;
    const cached = await this.#value({ tenant, vault, entry, session });
    return { id, version: cached.version, value: cached.value, known: this.#known(id, cached) };
  }

  async #value(request: CredentialRequest): Promise<CachedValue> {
    const { tenant, vault, entry, session } = request;
    // By session too: what one may read says nothing about another.
    const place = JSON.stringify([tenant, session.id, vault, entry.name]);
    const cached = this.#values.get(place);
    if (cached !== undefined && this.#age(cached) <= CACHE_MS) return cached;
    const running = this.#reading.get(place);
    if (running !== undefined) return await running;
    const reading = this.#readNow(place, request).finally(() => {
      this.#reading.delete(place);
    });
    this.#reading.set(place, reading);
    return await reading;
  }

  async #readNow(place: string, request: CredentialRequest): Promise<CachedValue> {
    const { source, clock, metrics, onRead } = this.#deps;
    const { tenant, vault, entry } = request;
    const about = { tenant, vault, entry: entry.name };
    const sourceName = entry.vaultRef === undefined ? "secret" : "vault";
    const old = this.#values.get(place);
    try {
      const { value, version } = await source.read(request);
      metrics.credentialReads.inc({ source: sourceName, outcome: "ok" });
      onRead({ ...about, version });
      const now = clock.monotonic();
      const changed = old !== undefined && old.value.reveal() !== value.reveal();
      const previous = changed ? { value: old.value, until: now + PREVIOUS_MS } : old?.previous;
      const cached = { value, version, readAt: now, previous };
      this.#values.set(place, cached);
      return cached;
    } catch (error) {
      metrics.credentialReads.inc({ source: sourceName, outcome: readOutcome(error) });
      const failure = { code: codeOf(error) ?? "INTERNAL", message: describeError(error) };
      onRead({ ...about, failure });
      // A vault that does not answer says nothing about the value; one that refuses it does.
      const isOutage = error instanceof AppError && error.retryable;
      if (isOutage && old !== undefined && this.#age(old) <= HELD_MS) return old;
      this.#values.delete(place);
      throw error;
    }
  }

  #age({ readAt }: CachedValue): number {
    return this.#deps.clock.monotonic() - readAt;
  }

  #known(id: string, { value, previous }: CachedValue): KnownSecret[] {
    const values = [value.reveal()];
    if (previous !== undefined && this.#deps.clock.monotonic() < previous.until) {
      values.push(previous.value.reveal());
    }
    return values.map((text) => ({ id, value: text }));
  }
}

/** The pair and the password inside a Basic credential, which a server may echo decoded. */
function withBasicParts({ known }: SessionCredential): KnownSecret[] {
  return known.flatMap((secret) => {
    const pair = Buffer.from(secret.value, "base64").toString("utf8");
    const password = pair.slice(pair.indexOf(":") + 1);
    const parts = [pair, password].filter((text) => /^[\x20-\x7e]{8,}$/.test(text));
    return [secret, ...parts.map((value) => ({ id: secret.id, value }))];
  });
}

function noEntry(what: string, nearMisses: readonly string[]): AppError {
  const hint =
    nearMisses.length === 0
      ? "no entry of the session's vaults is for it; add one with its exact URL"
      : `no entry has exactly its URL; nearly: ${nearMisses.join("; ")}`;
  return new AppError("CREDENTIAL_NOT_FOUND", `there is no credential for ${what}: ${hint}`);
}
