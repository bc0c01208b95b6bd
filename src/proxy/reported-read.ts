import type {
  Credential,
  CredentialRequest,
  CredentialSource,
} from "../credentials/credential-source.ts";
import { codeOf, describeError } from "../runtime/errors.ts";

/** What became of an entry when it was last read; never what it is. */
export interface CredentialReport {
  tenant: string;
  vault: string;
  entry: string;
  /** Absent when it was read. */
  failure?: { code: string; message: string };
  version?: string;
}

export interface ReportedReadDeps {
  source: CredentialSource;
  /** Told of every read that was not given up; must not throw. */
  onRead: (report: CredentialReport) => void;
}

/** Reads an entry and reports what became of it. Throws what the source throws. */
export async function reportedRead(
  { source, onRead }: ReportedReadDeps,
  request: CredentialRequest,
  signal?: AbortSignal,
): Promise<Credential> {
  const { tenant, vault, entry } = request;
  const about = { tenant, vault, entry: entry.name };
  try {
    const credential = await source.read(request, signal);
    onRead({ ...about, version: credential.version });
    return credential;
  } catch (error) {
    const failure = { code: codeOf(error) ?? "INTERNAL", message: describeError(error) };
    if (signal?.aborted !== true) onRead({ ...about, failure });
    throw error;
  }
}
