import { mkdir, readdir, readFile, rename, truncate, unlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { parseExact } from "../../protocol/exact-json.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, codeOf, describeError } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { LogState } from "../log-state.ts";
import {
  type Journal,
  type LogImage,
  type LogStep,
  memberOf,
  type SharedRecords,
} from "../memory/journal.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import type { Durability, SessionRef } from "../session-log.ts";
import { type Decoded, decodeRecords, RecordFile, syncDirectory } from "./record-file.ts";

/** First record of a session's file; its steps follow. */
interface CreatedRecord {
  ref: SessionRef;
  snapshot: SessionSnapshot;
}
/** One transition: the state after it and what it added. */
interface StepRecord {
  s: LogState;
  e: LogStep["appended"];
  k?: LogStep["key"];
  x?: LogStep["dropped"];
}

export interface FileJournalDeps {
  directory: string;
  clock: Pick<Clock, "now" | "monotonic">;
  logger: Logger;
  metrics?: SessionLogMetrics | undefined;
  onWriteFailure?: ((error: AppError) => void) | undefined;
}

/** Keeps each log in `sessions/<tenant>/<id>.log` and the rest in `shared.json`. */
export class FileJournal implements Journal {
  readonly restored: Journal["restored"];
  readonly #deps: FileJournalDeps;
  readonly #files = new Map<string, RecordFile>();
  #isClosed = false;
  #sharing: Promise<void> = Promise.resolve();

  private constructor(deps: FileJournalDeps, restored: Journal["restored"]) {
    this.#deps = deps;
    this.restored = restored;
    for (const { ref } of restored.logs) {
      this.#files.set(memberOf(ref), new RecordFile(pathOf(deps.directory, ref), true));
    }
  }

  /** Reads what is there; the leases of the process that wrote it are free at once. */
  static async open(deps: FileJournalDeps): Promise<FileJournal> {
    const sessions = join(deps.directory, "sessions");
    await mkdir(sessions, { recursive: true, mode: 0o700 });
    const logs: LogImage[] = [];
    const damaged = new Map<string, AppError>();
    for (const name of await readdir(sessions, { recursive: true })) {
      if (!name.endsWith(".log")) continue;
      const path = join(sessions, name);
      const log = await restoreLog(path, deps);
      if (log instanceof AppError) damaged.set(memberOf(refOf(path)), log);
      else if (log !== undefined) logs.push(log);
    }
    return new FileJournal(deps, { logs, damaged, ...(await readShared(deps.directory)) });
  }

  created(log: LogImage): void {
    const file = new RecordFile(pathOf(this.#deps.directory, log.ref), false);
    const record: CreatedRecord = { ref: log.ref, snapshot: log.snapshot };
    file.append(JSON.stringify(record));
    this.#files.set(memberOf(log.ref), file);
  }

  stepped(log: LogImage, step: LogStep): void {
    const record: StepRecord = { s: log.state, e: step.appended };
    if (step.key !== undefined) record.k = step.key;
    if (step.dropped.length > 0) record.x = step.dropped;
    const file = this.#files.get(memberOf(log.ref));
    file?.setResting(log.state.tok === "");
    file?.append(JSON.stringify(record));
  }

  async flush(ref: SessionRef, durability: Durability): Promise<void> {
    const file = this.#files.get(memberOf(ref));
    if (file === undefined) return;
    if (this.#isClosed) throw new AppError("UNAVAILABLE", "the session store is closed");
    const start = this.#deps.clock.monotonic();
    try {
      await mkdir(dirname(pathOf(this.#deps.directory, ref)), { recursive: true, mode: 0o700 });
      await file.flush(durability === "committed");
    } catch (error) {
      throw this.#notWritten(`the log of session ${ref.id}`, error);
    }
    if (durability !== "committed") return;
    this.#deps.metrics?.commitWait.observe((this.#deps.clock.monotonic() - start) / 1000);
  }

  async removed(ref: SessionRef): Promise<void> {
    const file = this.#files.get(memberOf(ref));
    this.#files.delete(memberOf(ref));
    await file?.close();
    const path = pathOf(this.#deps.directory, ref);
    try {
      await unlink(path);
    } catch (error) {
      // Created and deleted before anything was written.
      if (codeOf(error) === "ENOENT") return;
      throw error;
    }
    for (const name of await readdir(dirname(path))) {
      if (name.startsWith(`${basename(path)}.`)) await unlink(join(dirname(path), name));
    }
    await syncDirectory(dirname(path));
  }

  shared(records: SharedRecords): Promise<void> {
    const json = JSON.stringify({
      bindings: [...records.bindings],
      pools: [...records.pools],
    });
    this.#sharing = this.#sharing.catch(() => {}).then(() => this.#writeShared(json));
    return this.#sharing;
  }

  async close(): Promise<void> {
    await this.#sharing.catch(() => {});
    const files = [...this.#files.values()];
    this.#isClosed = true;
    // Who needed the data on the disk has waited for it.
    await Promise.all(files.map((file) => file.flush(true).catch(() => {})));
    await Promise.all(files.map((file) => file.close()));
  }

  async #writeShared(json: string): Promise<void> {
    const path = join(this.#deps.directory, "shared.json");
    try {
      await writeFile(`${path}.new`, json, { mode: 0o600, flush: true });
      await rename(`${path}.new`, path);
      await syncDirectory(this.#deps.directory);
    } catch (error) {
      throw this.#notWritten(path, error);
    }
  }

  #notWritten(what: string, cause: unknown): AppError {
    const error = new AppError(
      "UNAVAILABLE",
      `${what} cannot be written (${codeOf(cause) ?? "unknown error"}); make room or mend the disk, then start again`,
      { cause },
    );
    this.#deps.onWriteFailure?.(error);
    return error;
  }
}

function pathOf(directory: string, ref: SessionRef): string {
  return join(directory, "sessions", ref.tenant, `${ref.id}.log`);
}

function refOf(path: string): SessionRef {
  return { tenant: basename(dirname(path)), id: basename(path, ".log") };
}

/**
 * The log in a file, after a last record that is not whole was cut off; undefined when its creation
 * was never acknowledged. Of damage anywhere else the error is returned and the file left as it is:
 * what stands behind the damage was acknowledged, and its places in the log must not be given away.
 */
async function restoreLog(
  path: string,
  deps: FileJournalDeps,
): Promise<LogImage | AppError | undefined> {
  const content = await readFile(path);
  const { records, goodBytes, rest } = decodeRecords(content);
  const [first, ...steps] = records;
  const isBegun = first !== undefined && steps.length > 0;
  if (rest === "middle" || (rest === "last" && !isBegun)) {
    const error = damagedAt(path, goodBytes, rest);
    deps.logger.error({ sessionId: refOf(path).id, err: error.message }, "session refused");
    return error;
  }
  if (!isBegun) {
    await rename(path, await freeName(`${path}.cut-at-0`));
    return undefined;
  }
  if (goodBytes < content.length) await cutOff(path, content, goodBytes, deps.logger);
  const created: CreatedRecord = JSON.parse(first);
  const events: LogImage["events"] = [];
  const keys: LogImage["keys"] = new Map();
  let state: LogState | undefined;
  for (const json of steps) {
    const step = parseExact<StepRecord>(json);
    state = step.s;
    events.push(...step.e.map((event) => ({ ...UNCHAINED, ...event })));
    if (step.k !== undefined) keys.set(step.k.key, { first: step.k.first, ms: step.k.ms });
    for (const key of step.x ?? []) keys.delete(key);
  }
  if (state === undefined) return undefined;
  const freed = state.tok === "" ? state : { ...state, due: deps.clock.now() };
  return { ref: created.ref, snapshot: created.snapshot, state: freed, events, keys };
}

/** Of events that were written by a version that knew no chain values. */
const UNCHAINED = { chain: "" };

function damagedAt(path: string, offset: number, rest: Decoded["rest"]): AppError {
  const where = rest === "middle" ? "with other records behind it" : "before the session's first";
  return new AppError(
    "LOG_DAMAGED",
    `the log of session ${refOf(path).id} is damaged: the record at byte ${offset} of ${path} does not match its check sum, ${where}; nothing was changed. Put the file back from a backup, or move it away to begin the session anew`,
    { details: { path, offset } },
  );
}

/** What is cut off is kept beside the file. */
async function cutOff(
  path: string,
  content: Buffer,
  goodBytes: number,
  logger: Logger,
): Promise<void> {
  const copy = await freeName(`${path}.cut-at-${goodBytes}`);
  await writeFile(copy, content.subarray(goodBytes), { mode: 0o600, flush: true });
  await syncDirectory(dirname(path));
  await truncate(path, goodBytes);
  const fields = { sessionId: refOf(path).id, reason: `kept in ${copy}` };
  logger.warn(fields, "the last record of a session's file was not whole and is cut off");
}

/** The name, or the first with a number behind it that is not taken. */
async function freeName(path: string): Promise<string> {
  const taken = new Set(await readdir(dirname(path)));
  for (let n = 1; ; n += 1) {
    const name = n === 1 ? path : `${path}.${n}`;
    if (!taken.has(basename(name))) return name;
  }
}

async function readShared(directory: string): Promise<SharedRecords> {
  try {
    const { bindings, pools } = JSON.parse(await readFile(join(directory, "shared.json"), "utf8"));
    return { bindings: new Map(bindings), pools: new Map(pools) };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return { bindings: new Map(), pools: new Map() };
    throw new AppError("INTERNAL", `the record shared.json is damaged: ${describeError(error)}`, {
      cause: error,
    });
  }
}
