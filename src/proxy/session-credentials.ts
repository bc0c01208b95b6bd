import type {
  Credential,
  CredentialRequest,
  SessionIdentity,
} from "../credentials/credential-source.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { IdleMap } from "../runtime/idle-map.ts";
import { Secret } from "../runtime/secret.ts";
import { HeldSession } from "./held-session.ts";
import { KnownValues } from "./known-values.ts";
import { type ProxyMetrics, readOutcome } from "./metrics.ts";
import type { KnownSecret } from "./redaction.ts";
import { type ReportedReadDeps, reportedRead } from "./reported-read.ts";
import { matchEntry, type ServerUrl } from "./url-match.ts";

const MAX_KEPT = 4096;
/**
 * That long after its last use a session's values leave the memory, unless a request of it still
 * runs. They are sent for a minute at most; but a server may give back one that was replaced since
 * (docs/design/security.md#redaction: looked for ten minutes).
 */
const IDLE_MS = 600_000;

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
  /** To be asked anew for each piece of an answer. */
  known: () => readonly KnownSecret[];
}

export interface ServerCredential extends SessionCredential {
  header: string;
  headerValue: Secret;
}

/** How one server is asked. */
export interface ServerAccess {
  /** Undefined when no entry of the session's vaults is for it: it is asked without one. */
  credential: ServerCredential | undefined;
  /** Entries that were nearly for it, for the error when it refuses to be asked without one. */
  nearMisses: readonly string[];
  /** What must not come back from it: all that the session has been given. */
  known: () => readonly KnownSecret[];
}

type VaultEntry = SessionSnapshot["vaults"][number]["entries"][number];

export interface SessionCredentialsDeps extends ReportedReadDeps {
  clock: Clock;
  metrics: Pick<ProxyMetrics, "credentialReads">;
}

/**
 * Finds and reads the credential a session has for what it calls
 * (docs/design/security.md#which-credential).
 */
export class SessionCredentials {
  readonly #deps: SessionCredentialsDeps;
  readonly #sessions: IdleMap<HeldSession>;
  readonly #values: IdleMap<KnownValues>;

  constructor(deps: SessionCredentialsDeps) {
    this.#deps = deps;
    const { clock } = deps;
    this.#sessions = new IdleMap({ max: MAX_KEPT, idleMs: IDLE_MS, clock });
    this.#values = new IdleMap({ max: MAX_KEPT, idleMs: IDLE_MS, clock });
  }

  /**
   * Only a server that no entry is for is asked without a credential. One whose entry cannot be read
   * is not asked: throws CREDENTIAL_NOT_FOUND or CREDENTIAL_UNAVAILABLE.
   */
  async forServer(
    snapshot: SessionSnapshot,
    session: SessionIdentity,
    serverUrl: ServerUrl,
  ): Promise<ServerAccess> {
    const { known } = this.#session(snapshot.tenant, session.id);
    const match = matchEntry(serverUrl, snapshot.vaults, ({ mcpServerUrl }) => mcpServerUrl);
    if (!match.found) return { credential: undefined, nearMisses: match.nearMisses, known };
    const { vault, entry } = match;
    const header = entry.header.toLowerCase();
    if (RESERVED_HEADERS.has(header) || header.startsWith("mcp-")) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `entry "${entry.name}" of credential vault "${vault}" cannot be sent in header "${entry.header}"`,
      );
    }
    const read = await this.#read(snapshot.tenant, session, vault, entry);
    const { scheme } = entry;
    const headerValue = scheme === "" ? read.value : new Secret(`${scheme} ${read.value.reveal()}`);
    return { credential: { ...read, header, headerValue }, nearMisses: [], known };
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
    const held = this.#session(tenant, session.id);
    const credential = held.credential(this.#valuesOf(tenant, vault, entry));
    const request = { tenant, vault, entry, session };
    const { value, version } = await credential.get(async () => await this.#readNow(request));
    return { id, version, value, known: held.known };
  }

  /** What one session may read says nothing about another. */
  #session(tenant: string, sessionId: string): HeldSession {
    const key = JSON.stringify([tenant, sessionId]);
    return this.#sessions.getOrMake(key, () => new HeldSession(this.#deps));
  }

  /** For all sessions: a server may give to one what another has sent it. Nobody is sent from it. */
  #valuesOf(tenant: string, vault: string, { name, scheme }: VaultEntry): KnownValues {
    const key = JSON.stringify([tenant, vault, name, scheme]);
    const id = `${vault}/${name}`;
    const secrets = (value: string) =>
      secretsOf(value, scheme).map((secret) => ({ id, value: secret }));
    return this.#values.getOrMake(key, () => new KnownValues(secrets));
  }

  async #readNow(request: CredentialRequest): Promise<Credential> {
    const { credentialReads } = this.#deps.metrics;
    const source = request.entry.vaultRef === undefined ? "secret" : "vault";
    try {
      const credential = await reportedRead(this.#deps, request);
      credentialReads.inc({ source, outcome: "ok" });
      return credential;
    } catch (error) {
      credentialReads.inc({ source, outcome: readOutcome(error) });
      throw error;
    }
  }
}

/** The value; of a Basic credential the pair and the password inside too: a server may decode it. */
function secretsOf(value: string, scheme: string): string[] {
  if (scheme.toLowerCase() !== "basic") return [value];
  const pair = Buffer.from(value, "base64").toString("utf8");
  const password = pair.slice(pair.indexOf(":") + 1);
  return [value, ...[pair, password].filter((text) => /^[\x20-\x7e]{8,}$/.test(text))];
}
