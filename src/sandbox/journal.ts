import { type FileHandle, mkdir, open, readFile, rename, truncate } from "node:fs/promises";
import { join } from "node:path";
import { codeOf } from "../runtime/errors.ts";
import {
  applyRecord,
  type JournalRecord,
  type JournalState,
  parseJournal,
  recordsOf,
} from "./journal-record.ts";

/**
 * The daemon's record of started and finished calls (docs/design/session-log.md#tool-calls): one
 * append-only file of JSON lines. What `append` was given is on the disk when it returns, so that
 * after SIGKILL a repeated id finds its result, or the fact that it started. Code in the sandbox
 * that goes after the file on purpose hurts its own session only.
 */

/** Rewritten without acknowledged results above this size, so that the journal's volume never fills. */
const COMPACT_ABOVE_BYTES = 8 * 1024 * 1024;
const FILE_NAME = "journal.jsonl";

interface Pending {
  record: JournalRecord;
  resolve: () => void;
  reject: (cause: unknown) => void;
}

export class Journal {
  readonly #directory: string;
  readonly #state: JournalState;
  /** Lines that could not be read at start: torn by a crash, or damaged by code in the sandbox. */
  readonly damagedLines: number;
  #file: FileHandle;
  #bytes: number;
  #compactAbove = COMPACT_ABOVE_BYTES;
  #pending: Pending[] = [];
  #flushing: Promise<void> | undefined;

  private constructor(
    directory: string,
    file: FileHandle,
    bytes: number,
    parsed: { state: JournalState; damaged: number },
  ) {
    this.#directory = directory;
    this.#file = file;
    this.#bytes = bytes;
    this.#state = parsed.state;
    this.damagedLines = parsed.damaged;
  }

  /** Opens or makes the journal in `directory`. A torn last line is cut off. */
  static async open(directory: string): Promise<Journal> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, FILE_NAME);
    const bytes = await readIfPresent(path);
    const end = bytes.lastIndexOf(0x0a) + 1;
    if (end < bytes.length) await truncate(path, end);
    const file = await open(path, "a", 0o600);
    await file.sync();
    await syncDirectory(directory);
    return new Journal(directory, file, end, parseJournal(bytes.toString("utf8")));
  }

  /** What the durable records add up to. Read-only for callers. */
  get state(): JournalState {
    return this.#state;
  }

  /** Resolves once the record is on the disk; rejects with the file system's error. Concurrent records share one sync. */
  append(record: JournalRecord): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#pending.push({ record, resolve, reject });
    this.#flushing ??= this.#flush();
    return promise;
  }

  async close(): Promise<void> {
    await this.#flushing;
    await this.#file.close();
  }

  async #flush(): Promise<void> {
    // A turn of the loop, so that records of the same moment go together.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const batch = this.#pending;
      this.#pending = [];
      try {
        await this.#write(batch.map(({ record }) => record));
        for (const { resolve } of batch) resolve();
      } catch (cause) {
        for (const { reject } of batch) reject(cause);
      }
    }
    this.#flushing = undefined;
  }

  async #write(records: readonly JournalRecord[]): Promise<void> {
    const text = Buffer.from(linesOf(records));
    try {
      await this.#file.appendFile(text);
      await this.#file.datasync();
    } catch (cause) {
      // Half a line must not swallow the next one; without space this may fail too, and parsing copes.
      await this.#file.truncate(this.#bytes).catch(() => {});
      throw cause;
    }
    this.#bytes += text.length;
    for (const record of records) applyRecord(this.#state, record);
    // What was appended is durable; a rewrite that fails is tried again when the file has grown more.
    if (this.#bytes > this.#compactAbove) {
      await this.#compact().catch(() => {
        this.#compactAbove += COMPACT_ABOVE_BYTES;
      });
    }
  }

  /** Writes the state to a new file and renames it over the old one. */
  async #compact(): Promise<void> {
    const path = join(this.#directory, FILE_NAME);
    const text = Buffer.from(linesOf(recordsOf(this.#state)));
    const fresh = await open(`${path}.new`, "a", 0o600);
    try {
      await fresh.truncate(0);
      await fresh.appendFile(text);
      await fresh.sync();
      await rename(`${path}.new`, path);
    } catch (cause) {
      await fresh.close();
      throw cause;
    }
    await this.#file.close();
    this.#file = fresh;
    this.#bytes = text.length;
    // Results nobody has acknowledged are kept whatever they take; do not rewrite them at each append.
    this.#compactAbove = Math.max(COMPACT_ABOVE_BYTES, 2 * text.length);
    await syncDirectory(this.#directory);
  }
}

function linesOf(records: readonly JournalRecord[]): string {
  return records.map((record) => `${JSON.stringify(record)}\n`).join("");
}

async function readIfPresent(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return Buffer.alloc(0);
    throw error;
  }
}

/** Makes a new or renamed name durable. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
