import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeText, fromCharacterStart } from "./output.ts";
import { fileNameOf } from "./output-store.ts";

/**
 * The last that each running call has printed, in files beside the journal: so that a daemon which was
 * killed, or which lost its runner, can say it. Keeping it never fails a call.
 */
export class TailStore {
  readonly #folder: string;

  constructor(journalDir: string) {
    this.#folder = join(journalDir, "live");
  }

  keep(id: string, tail: Buffer): void {
    try {
      mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
      writeFileSync(this.#file(id), tail, { mode: 0o600 });
    } catch {
      // A full disk: the call goes on, and its end is told without what it printed.
    }
  }

  /** '' when nothing is known. */
  of(id: string): string {
    try {
      return decodeText(fromCharacterStart(readFileSync(this.#file(id))));
    } catch {
      return "";
    }
  }

  forget(id: string): void {
    rmSync(this.#file(id), { force: true });
  }

  #file(id: string): string {
    return join(this.#folder, fileNameOf(id));
  }
}
