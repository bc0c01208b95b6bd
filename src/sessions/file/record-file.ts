import { type FileHandle, open } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";

/**
 * A file of records, one a line: `<bytes> <crc32 in hex> <json>\n`. When the machine stops while the
 * last record is written, that one is not whole; of every other record this means damage.
 */

export function encodeRecord(json: string): Buffer {
  const body = Buffer.from(json);
  const sum = crc32(body).toString(16).padStart(8, "0");
  return Buffer.concat([Buffer.from(`${body.length} ${sum} `), body, Buffer.from("\n")]);
}

export interface Decoded {
  /** The whole records up to the first that is not. */
  records: string[];
  /** Bytes they take. */
  goodBytes: number;
  /**
   * What is behind them: nothing; one record of which the end was never written (`torn`); one that
   * has its full length and does not check (`last`); or one that others follow (`middle`).
   */
  rest: "none" | "torn" | "last" | "middle";
}

const LINE_END = 0x0a;

export function decodeRecords(content: Buffer): Decoded {
  const records: string[] = [];
  let at = 0;
  for (;;) {
    if (at >= content.length) return { records, goodBytes: at, rest: "none" };
    const header = headerAt(content, at);
    const end = header === undefined ? undefined : header.start + header.bytes;
    const body = content.subarray(header?.start, end);
    const isWhole = end !== undefined && content[end] === LINE_END && crc32(body) === header?.sum;
    if (!isWhole) return { records, goodBytes: at, rest: restAt(content, at, end) };
    records.push(body.toString());
    at = end + 1;
  }
}

function headerAt(
  content: Buffer,
  at: number,
): { start: number; bytes: number; sum: number } | undefined {
  const found = /^(\d{1,10}) ([0-9a-f]{8}) /.exec(content.toString("latin1", at, at + 20));
  if (found === null) return undefined;
  const [header, bytes, sum = ""] = found;
  return { start: at + header.length, bytes: Number(bytes), sum: Number.parseInt(sum, 16) };
}

/** A later record shows by its header: behind a line's end, or where this one says that it ends. */
function restAt(content: Buffer, at: number, end: number | undefined): Decoded["rest"] {
  if (end !== undefined && headerAt(content, end + 1) !== undefined) return "middle";
  for (let line = content.indexOf(LINE_END, at); line !== -1; ) {
    if (headerAt(content, line + 1) !== undefined) return "middle";
    line = content.indexOf(LINE_END, line + 1);
  }
  // A file may have got its length before its content: then there are zeros.
  const isBlank = content.subarray(at).every((byte) => byte === 0);
  return isBlank || content.at(-1) !== LINE_END ? "torn" : "last";
}

interface Waiter {
  sync: boolean;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** Appends records in order; those who wait at the same time share one write and one fsync. */
export class RecordFile {
  readonly #path: string;
  #handle: FileHandle | undefined;
  #pending: Buffer[] = [];
  #waiters: Waiter[] = [];
  #loop: Promise<void> = Promise.resolve();
  #isRunning = false;
  #isResting = false;
  #isUnsynced = false;
  #isListed: boolean;
  #failure: unknown;

  /** `isListed`: the file exists and its directory entry is on disk. */
  constructor(path: string, isListed: boolean) {
    this.#path = path;
    this.#isListed = isListed;
  }

  append(json: string): void {
    this.#pending.push(encodeRecord(json));
  }

  /** Resolves when everything appended so far has been written, with `sync` to the disk. */
  flush(sync: boolean): Promise<void> {
    // A record that was written in part hides all that follow, so after a failure nothing follows.
    if (this.#failure !== undefined) return Promise.reject(asError(this.#failure));
    const isDone = this.#pending.length === 0 && !this.#isRunning;
    if (isDone && !(sync && this.#isUnsynced)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ sync, resolve, reject });
      this.#start();
    });
  }

  /** While at rest no file handle stays open between flushes. */
  setResting(isResting: boolean): void {
    this.#isResting = isResting;
  }

  async close(): Promise<void> {
    this.#isResting = true;
    this.#start();
    await this.#loop;
  }

  #start(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#loop = this.#run();
  }

  async #run(): Promise<void> {
    while (this.#waiters.length > 0 || (this.#isResting && this.#handle !== undefined)) {
      if (this.#waiters.length > 0) await this.#serve(this.#waiters.splice(0));
      else await this.#letGo();
    }
    this.#isRunning = false;
  }

  async #serve(waiters: Waiter[]): Promise<void> {
    try {
      await this.#write(waiters.some(({ sync }) => sync));
      for (const waiter of waiters) waiter.resolve();
    } catch (error) {
      this.#failure = error;
      for (const waiter of [...waiters, ...this.#waiters.splice(0)]) waiter.reject(error);
    }
  }

  async #letGo(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    // The data is written; a failure to close has nobody to tell and loses nothing.
    await handle?.close().catch(() => {});
  }

  async #write(sync: boolean): Promise<void> {
    const records = this.#pending.splice(0);
    this.#handle ??= await open(this.#path, "a", 0o600);
    if (records.length > 0) {
      this.#isUnsynced = true;
      await this.#handle.appendFile(Buffer.concat(records));
    }
    if (!sync) return;
    if (this.#isUnsynced) await this.#handle.datasync();
    this.#isUnsynced = false;
    if (!this.#isListed) await syncDirectory(dirname(this.#path));
    this.#isListed = true;
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function asError(failure: unknown): Error {
  return Error.isError(failure) ? failure : new Error(String(failure));
}
