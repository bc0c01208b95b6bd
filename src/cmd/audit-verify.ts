import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { AuditVerification, type KnownCheckpoint } from "../proxy/audit-verify.ts";
import { AppError } from "../runtime/errors.ts";
import { visibleLine } from "../runtime/visible.ts";

/**
 * `drover audit verify`: reads a log from `input` and says what is wrong with its audit chains.
 * Resolves to 0 when nothing is, 1 when something is or there is no audit record at all.
 */
export async function auditVerifyMain(
  checkpoints: readonly string[],
  input: Readable,
  output: Writable,
): Promise<number> {
  const verification = new AuditVerification(checkpoints.map(parseCheckpoint));
  for await (const line of createInterface({ input })) verification.add(line);
  const { records, heads, problems } = verification.report();
  const lines = [
    ...problems,
    ...heads.map(
      ({ chain, podUid, seq, hash }) => `chain ${chain} of pod ${podUid} ends at ${seq}:${hash}`,
    ),
    `${records} records, ${heads.length} chains, ${problems.length} problems`,
  ];
  output.write(`${lines.map(visibleLine).join("\n")}\n`);
  return problems.length === 0 && records > 0 ? 0 : 1;
}

/** Throws CONFIG_INVALID. */
function parseCheckpoint(text: string): KnownCheckpoint {
  const [, chain, seq, hash] = /^([\w-]+):(\d+):([0-9a-f]{64})$/.exec(text) ?? [];
  if (chain === undefined || hash === undefined) {
    throw new AppError("CONFIG_INVALID", `--checkpoint "${text}" is not CHAIN:SEQ:HASH`);
  }
  return { chain, seq: Number(seq), hash };
}
