import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, codeOf } from "../../runtime/errors.ts";
import { spawned } from "../processes.ts";

/**
 * Named pipes between the daemon and its shell. A pipe is never opened in a way that waits: a thread
 * of Node that waits in `open` keeps the whole process from ending.
 */

const CHUNK_BYTES = 65_536;
/** Between two looks whether a pipe has a reader: the first few are soon, because the shell is quick. */
const LOOK_MS = [1, 1, 2, 2, 5, 5, 10, 20];

/** Node cannot make a pipe that another process opens by name. */
export async function makePipes(...paths: readonly string[]): Promise<void> {
  const child = spawn("mkfifo", ["-m", "600", ...paths], { stdio: "ignore", env: {} });
  await spawned(child);
  const [code]: (number | null)[] = await once(child, "exit");
  if (code !== 0) {
    throw new AppError("UNAVAILABLE", "the command cannot be started: no pipe could be made");
  }
}

/** A pipe for the output of one command, read with one reused buffer. */
export class OutputPipe {
  readonly #path: string;
  readonly #reader: number;
  /** Keeps the pipe from ending before the shell has opened it. */
  readonly #writer: number;
  readonly #onOutput: (chunk: Buffer) => void;
  #finished = false;
  #closed = false;

  constructor(path: string, onOutput: (chunk: Buffer) => void) {
    this.#path = path;
    this.#onOutput = onOutput;
    this.#reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const socket = new Socket({
      fd: this.#reader,
      readable: true,
      writable: false,
      onread: {
        buffer: Buffer.alloc(CHUNK_BYTES),
        callback: (count, buffer) => {
          if (!this.#finished) this.#onOutput(Buffer.from(buffer.buffer, buffer.byteOffset, count));
          return true;
        },
      },
    });
    // A pipe we cannot read any more gives no output; the command's end is reported elsewhere.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#closed = true;
    });
    socket.unref();
    socket.resume();
  }

  /**
   * Takes what the command has printed and nobody has read yet: at most a pipe's capacity, so that
   * background children that go on printing cannot hold the call. Later output is dropped.
   */
  finish(): void {
    const buffer = Buffer.alloc(CHUNK_BYTES);
    let left = CHUNK_BYTES;
    try {
      while (left > 0 && !this.#closed) {
        const count = readSync(this.#reader, buffer, 0, left, null);
        if (count === 0) break;
        left -= count;
        this.#onOutput(buffer.subarray(0, count));
      }
    } catch {
      // EAGAIN: the pipe is empty.
    }
    this.#finished = true;
    closeSync(this.#writer);
    rmSync(this.#path, { force: true });
  }
}

/** A pipe that says only one thing: that somebody has opened it for writing and closed it again. */
export class SignalPipe {
  readonly reached: Promise<void>;
  readonly #path: string;
  readonly #socket: Socket;

  constructor(path: string) {
    this.#path = path;
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on("error", () => {});
    this.#socket.unref();
    this.#socket.resume();
    this.reached = new Promise((resolve) => this.#socket.once("end", resolve));
  }

  close(): void {
    this.#socket.destroy();
    rmSync(this.#path, { force: true });
  }
}

/**
 * A text for whoever opens the pipe to read it: once, and not at all after `withdraw`. So it is known
 * whether it was taken, and it is taken once.
 */
export class Handover {
  readonly #path: string;
  readonly #text: string;
  readonly #stop = new AbortController();
  #taken = false;

  constructor(path: string, text: string) {
    this.#path = path;
    this.#text = text;
  }

  get taken(): boolean {
    return this.#taken;
  }

  /** Waits for the reader. */
  async offer(clock: Clock): Promise<void> {
    for (let look = 0; !this.#stop.signal.aborted; look += 1) {
      const writer = this.#openWhenRead();
      if (writer !== undefined) {
        this.#taken = true;
        // Whoever opens it a second time must not wait for a writer for ever.
        rmSync(this.#path, { force: true });
        this.#write(writer);
        return;
      }
      await clock.sleep(LOOK_MS[look] ?? 20, this.#stop.signal).catch(() => {});
    }
  }

  withdraw(): void {
    this.#stop.abort();
    rmSync(this.#path, { force: true });
  }

  /** Undefined while nobody reads. */
  #openWhenRead(): number | undefined {
    try {
      const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW;
      return openSync(this.#path, flags);
    } catch (error) {
      // ENXIO: no reader; ENOENT: a command removed the pipe, and no shell can read it.
      if (codeOf(error) === "ENXIO" || codeOf(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  #write(fd: number): void {
    const socket = new Socket({ fd, readable: false, writable: true });
    // A reader that goes away before the end is a shell that died: its exit is seen elsewhere.
    socket.on("error", () => {});
    socket.unref();
    socket.end(this.#text);
  }
}
