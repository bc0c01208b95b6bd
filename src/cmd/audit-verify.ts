import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { z } from "zod";
import type { AuditVerifyArguments } from "../cli/program.ts";
import { checkpointReader } from "../protocol/signed-checkpoint.ts";
import type { Jwks } from "../protocol/tokens.ts";
import { AuditVerification, type KnownCheckpoint } from "../proxy/audit-verify.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import { visibleLine } from "../runtime/visible.ts";

const jwks = z.object({
  keys: z.array(z.looseObject({ kty: z.literal("OKP"), kid: z.string() })).min(1),
});

/**
 * `drover audit verify`: reads a log from `input` and says what is wrong with its audit chains.
 * Resolves to 0 when nothing is, 1 when something is, when there is no audit record at all, and when
 * nothing could show who wrote the records and that was not asked for. Throws CONFIG_INVALID.
 */
export async function auditVerifyMain(
  options: AuditVerifyArguments,
  { input, output, clock }: { input: Readable; output: Writable; clock: Pick<Clock, "now"> },
): Promise<number> {
  checkOptions(options);
  const signed = await readCheckpoints(options.checkpoints, await readKeys(options.keys));
  const checkpoints = [...options.checkpoint.map(parseCheckpoint), ...signed.checkpoints];
  const isProof = options.checkpoint.length + options.checkpoints.length > 0;
  // A file without one good checkpoint must not turn into a check without checkpoints.
  const empty = isProof && checkpoints.length === 0 ? ["there is no good checkpoint"] : [];
  const verification = new AuditVerification(checkpoints, { pods: options.pod, now: clock.now() });
  for await (const line of createInterface({ input })) verification.add(line);
  const report = verification.report();
  const problems = [...signed.problems, ...empty, ...report.problems];
  const lines = [
    ...problems,
    ...report.notes,
    ...report.heads.map(
      ({ chain, podUid, seq, hash }) => `chain ${chain} of pod ${podUid} ends at ${seq}:${hash}`,
    ),
    `${report.records} records, ${report.heads.length} chains, ${problems.length} problems`,
    ...(isProof ? [] : [NOT_PROVEN]),
  ];
  output.write(`${lines.map(visibleLine).join("\n")}\n`);
  const isEnough = isProof || options.consistencyOnly === true;
  return problems.length === 0 && report.records > 0 && isEnough ? 0 : 1;
}

const NOT_PROVEN =
  "no checkpoints were given: each chain was only held against itself. A chain that somebody made up, " +
  "one that is missing, and a cut end are not seen without --checkpoints and --keys";

function checkOptions({
  checkpoint,
  checkpoints,
  keys,
  consistencyOnly,
}: AuditVerifyArguments): void {
  if (checkpoints.length > 0 !== keys.length > 0) {
    const [given, missing] =
      keys.length > 0 ? ["--keys", "--checkpoints"] : ["--checkpoints", "--keys"];
    throw new AppError("CONFIG_INVALID", `${given} is of no use without ${missing}`);
  }
  if (consistencyOnly === true && checkpoint.length + checkpoints.length > 0) {
    throw new AppError("CONFIG_INVALID", "--consistency-only does not go with checkpoints");
  }
}

/** Good checkpoints of the files, and a sentence for each file with anything else. */
async function readCheckpoints(
  files: readonly string[],
  keys: Jwks,
): Promise<{ checkpoints: KnownCheckpoint[]; problems: string[] }> {
  const read = checkpointReader(keys);
  const checkpoints: KnownCheckpoint[] = [];
  const problems: string[] = [];
  for (const file of files) {
    const bad: string[] = [];
    let number = 0;
    for await (const line of linesOf(file)) {
      number += 1;
      if (isOfStream(line)) continue;
      try {
        checkpoints.push(await read(line.trim()));
      } catch (error) {
        bad.push(`line ${number}: ${describeError(error)}`);
      }
    }
    if (bad.length > 0) {
      problems.push(
        `${file} has ${bad.length} lines that are no good checkpoint, the first: ${bad[0]}`,
      );
    }
  }
  return { checkpoints, problems };
}

/** Id of an entry of the stream, or the name of its one field. */
function isOfStream(line: string): boolean {
  return /^(\d+-\d+|checkpoint)?$/.test(line.trim());
}

async function* linesOf(file: string): AsyncGenerator<string> {
  const input = createReadStream(file);
  try {
    yield* createInterface({ input });
  } catch (cause) {
    throw notRead("--checkpoints", file, cause);
  }
}

async function readKeys(files: readonly string[]): Promise<Jwks> {
  const all = await Promise.all(
    files.map(async (file) => {
      try {
        return jwks.parse(JSON.parse(await readFile(file, "utf8"))).keys;
      } catch (cause) {
        throw notRead("--keys", file, cause);
      }
    }),
  );
  return { keys: all.flat() };
}

function notRead(option: string, file: string, cause: unknown): AppError {
  const what = option === "--keys" ? "public keys of the issuer (JWKS)" : "checkpoints";
  const why = Error.isError(cause) && "code" in cause ? `: ${describeError(cause)}` : "";
  return new AppError("CONFIG_INVALID", `${option} ${file} cannot be read as ${what}${why}`);
}

/** Throws CONFIG_INVALID. */
function parseCheckpoint(text: string): KnownCheckpoint {
  const [, chain, seq, hash] = /^([\w-]+):(\d+):([0-9a-f]{64})$/.exec(text) ?? [];
  if (chain === undefined || hash === undefined) {
    throw new AppError("CONFIG_INVALID", `--checkpoint "${text}" is not CHAIN:SEQ:HASH`);
  }
  return { chain, seq: Number(seq), hash };
}
