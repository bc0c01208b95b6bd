import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import {
  decodeText,
  fitsResult,
  MAX_RESULT_JSON_BYTES,
  PREVIEW_BYTES,
  previewOutput,
  type RawOutput,
  type StoredOutput,
} from "./output.ts";

/**
 * Keeps the output of calls in flat memory. The first 192 KiB are held; from there on all of it goes
 * to a file in the workspace. Files are written synchronously: that is what slows a program down that
 * prints faster than the disk takes it.
 */

/** A file of output is cut here; a workspace of the default size holds several. */
const MAX_FILE_BYTES = 100_000_000;
/** Older files go first when all outputs together exceed this. */
const MAX_FOLDER_BYTES = 200_000_000;
const FOLDER = ".drover/outputs";

export interface OutputStoreOptions {
  workspace: string;
}

export class OutputStore {
  readonly #folder: string;

  constructor(options: OutputStoreOptions) {
    this.#folder = join(options.workspace, FOLDER);
  }

  /** A recorder for the output of one call; `onOutput` hears all of it, in buffers that are reused. */
  record(id: string, onOutput: (chunk: Buffer) => void = () => {}): OutputRecorder {
    const name = fileNameOf(id);
    return new OutputRecorder({
      onOutput,
      openSpill: () => this.#openSpill(name),
      spillPath: `${FOLDER}/${name}`,
    });
  }

  #openSpill(name: string): number | undefined {
    const file = openForWrite(this.#folder, name);
    if (file !== undefined) {
      // A repository in the workspace must not see our files.
      ignoreErrors(() => writeFileSync(join(this.#folder, "../.gitignore"), "*\n"));
      ignoreErrors(() => this.#prune(name));
    }
    return file;
  }

  #prune(keep: string): void {
    const files = readdirSync(this.#folder)
      .filter((name) => name !== keep)
      .map((name) => ({ name, stat: statSync(join(this.#folder, name)) }))
      .toSorted((a, b) => b.stat.mtimeMs - a.stat.mtimeMs);
    let total = MAX_FILE_BYTES;
    for (const { name, stat } of files) {
      total += stat.size;
      if (total > MAX_FOLDER_BYTES) rmSync(join(this.#folder, name), { force: true });
    }
  }
}

interface RecorderOptions {
  onOutput: (chunk: Buffer) => void;
  openSpill: () => number | undefined;
  spillPath: string;
}

export class OutputRecorder {
  readonly #options: RecorderOptions;
  readonly #held: Buffer[] = [];
  #heldBytes = 0;
  #total = 0;
  #tail = Buffer.alloc(0);
  #spill: { file: number | undefined; bytes: number } | undefined;

  constructor(options: RecorderOptions) {
    this.#options = options;
  }

  /** Takes the next bytes; the buffer may be reused by the caller. */
  write(chunk: Buffer): void {
    const room = MAX_RESULT_JSON_BYTES - this.#heldBytes;
    this.#total += chunk.length;
    this.#options.onOutput(chunk);
    if (room > 0) {
      const part = Buffer.from(chunk.subarray(0, room));
      this.#held.push(part);
      this.#heldBytes += part.length;
    }
    if (chunk.length > room) {
      const rest = chunk.subarray(Math.max(0, room));
      this.#spillOver(rest);
      this.#keepTail(rest);
    }
  }

  /** The text of the result; keeps a file in the workspace when it does not fit. Call once. */
  end(clean: (text: string) => string): { text: string; whole: boolean; totalBytes: number } {
    const head = Buffer.concat(this.#held);
    const totalBytes = this.#total;
    if (this.#spill === undefined) {
      const text = clean(decodeText(head));
      if (fitsResult(text)) {
        this.#close();
        return { text, whole: true, totalBytes };
      }
      this.#spillOver(Buffer.alloc(0));
      this.#tail = head;
    }
    const stored = this.#stored();
    this.#close();
    const raw: RawOutput = { head, tail: this.#tail, totalBytes };
    return { text: previewOutput(raw, stored, clean), whole: false, totalBytes };
  }

  #spillOver(chunk: Buffer): void {
    if (this.#spill === undefined) {
      this.#spill = { file: this.#options.openSpill(), bytes: 0 };
      for (const part of this.#held) this.#appendToSpill(part);
      this.#tail = Buffer.alloc(PREVIEW_BYTES);
      for (const part of this.#held) this.#keepTail(part);
    }
    this.#appendToSpill(chunk);
  }

  #appendToSpill(chunk: Buffer): void {
    const spill = this.#spill;
    if (spill?.file === undefined || spill.bytes >= MAX_FILE_BYTES) return;
    const part = chunk.subarray(0, MAX_FILE_BYTES - spill.bytes);
    const written = writeWhole(spill.file, part);
    spill.bytes += written;
    if (written < part.length) {
      // The disk is full: the file ends here.
      ignoreErrors(() => closeSync(spill.file ?? -1));
      spill.file = undefined;
    }
  }

  #keepTail(chunk: Buffer): void {
    const part = chunk.subarray(-PREVIEW_BYTES);
    // In place: a copy for each read would be garbage as large as the output.
    this.#tail.copyWithin(0, part.length);
    part.copy(this.#tail, PREVIEW_BYTES - part.length);
  }

  #stored(): StoredOutput | undefined {
    const bytes = this.#spill?.bytes ?? 0;
    return bytes === 0 ? undefined : { path: this.#options.spillPath, bytes };
  }

  #close(): void {
    const file = this.#spill?.file;
    if (file !== undefined) ignoreErrors(() => closeSync(file));
    if (this.#spill !== undefined) this.#spill.file = undefined;
  }
}

/** The id itself where it is a plain word, else a readable part of it and a hash. */
export function fileNameOf(id: string): string {
  if (/^[\w-]{1,100}$/.test(id)) return `${id}.txt`;
  const hash = createHash("sha256").update(id).digest("hex").slice(0, 16);
  return `${id.replaceAll(/[^\w-]/g, "_").slice(0, 60)}-${hash}.txt`;
}

/** Undefined when the file cannot be made: output is then shown, not kept. */
function openForWrite(folder: string, name: string): number | undefined {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
    return openSync(join(folder, name), flags, 0o600);
  } catch {
    return undefined;
  }
}

/** Bytes written: fewer than given when the disk is full. */
function writeWhole(file: number, bytes: Buffer): number {
  let done = 0;
  try {
    while (done < bytes.length) done += writeSync(file, bytes, done);
  } catch {
    // Full disk or quota: the caller sees how far it went.
  }
  return done;
}

function ignoreErrors(work: () => void): void {
  try {
    work();
  } catch {
    // Housekeeping of output files never fails a call.
  }
}
