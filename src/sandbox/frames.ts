import { AppError } from "../runtime/errors.ts";

/** Messages on a byte stream: four bytes that say the length, then JSON in UTF-8. Pure. */

const HEADER_BYTES = 4;

export function encodeFrame(message: unknown): Buffer {
  const text = JSON.stringify(message);
  const length = Buffer.byteLength(text);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + length);
  frame.writeUInt32BE(length);
  frame.write(text, HEADER_BYTES);
  return frame;
}

/** Takes a stream of frames apart. It never holds more than one message, whatever the other side sends. */
export class FrameReader {
  readonly #limitBytes: number;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #body: Buffer | undefined;
  /** Bytes of the header, or of the body once there is one. */
  #filled = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /**
   * The messages that are complete with these bytes, one after the other. Throws INPUT_TOO_LARGE for a
   * message above the limit and INPUT_INVALID for one that is not JSON; then the stream is of no more use.
   */
  *push(chunk: Buffer): Generator<unknown, void, void> {
    let rest = chunk;
    while (rest.length > 0) {
      const target = this.#body ?? this.#header;
      const count = rest.copy(target, this.#filled);
      this.#filled += count;
      rest = rest.subarray(count);
      if (this.#filled < target.length) return;
      this.#filled = 0;
      if (this.#body === undefined) this.#body = this.#bodyFor(this.#header.readUInt32BE());
      else {
        this.#body = undefined;
        yield parse(target);
      }
    }
  }

  #bodyFor(length: number): Buffer {
    if (length === 0) throw new AppError("INPUT_INVALID", "a message without content");
    if (length > this.#limitBytes) {
      const message = `a message of ${length} bytes; at most ${this.#limitBytes} are taken`;
      throw new AppError("INPUT_TOO_LARGE", message);
    }
    return Buffer.alloc(length);
  }
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8"));
  } catch (cause) {
    throw new AppError("INPUT_INVALID", "a message that is not JSON", { cause });
  }
}
