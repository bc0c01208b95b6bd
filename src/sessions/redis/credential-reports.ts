import type { Redis } from "ioredis";
import {
  type CredentialReportReader,
  type CredentialReportWriter,
  type EntryReport,
  entryReport,
} from "../../protocol/session-ports.ts";
import { credentialReportsKey } from "../keys.ts";

/** Nobody has read anything of the vault for so long. */
const KEPT_SECONDS = 7 * 24 * 3600;

/** One hash a CredentialVault: entry → report. */
export class RedisCredentialReports implements CredentialReportReader, CredentialReportWriter {
  readonly #connection: Redis;

  constructor(connection: Redis) {
    this.#connection = connection;
  }

  async writeCredentialReport(
    { tenant, vault, entry }: { tenant: string; vault: string; entry: string },
    report: EntryReport,
  ): Promise<void> {
    const key = credentialReportsKey(tenant, vault);
    await Promise.all([
      this.#connection.hset(key, entry, JSON.stringify(report)),
      this.#connection.expire(key, KEPT_SECONDS),
    ]);
  }

  /** What does not parse is left out: every proxy may write here, the status must stay a status. */
  async readCredentialReports(
    tenant: string,
    vault: string,
  ): Promise<ReadonlyMap<string, EntryReport>> {
    const fields = await this.#connection.hgetall(credentialReportsKey(tenant, vault));
    return new Map(
      Object.entries(fields).flatMap(([entry, json]) => {
        const { data } = entryReport.safeParse(parseJson(json));
        return data === undefined ? [] : [[entry, data] as const];
      }),
    );
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
