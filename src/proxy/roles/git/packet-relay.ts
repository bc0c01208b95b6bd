import type { RedactionStream, Redactor } from "../../redaction.ts";
import { unusableAnswer } from "../../upstream-errors.ts";
import { BAND, encodeBand, encodePkt, type Pkt, readPkt } from "./pkt-line.ts";

/** What an answer of a git host is made of: lines; lines and the bands of a pack, or of a report. */
export type AnswerKind = "refs" | "fetch" | "push";

/**
 * Passes an answer on packet by packet without any known value in its text: refs, reports, words for
 * people, and the pack of a fetch: a host could put a value there in plain. A pack that held one no
 * longer fits its checksum, so git refuses it. Yields whole packets, so one
 * of ours may follow at any point. Throws UPSTREAM_REFUSED for what is not made of packets.
 */
export async function* relayPackets(
  source: AsyncIterable<Uint8Array>,
  redactor: Redactor,
  kind: AnswerKind,
): AsyncGenerator<Buffer> {
  const cleaner = new PacketCleaner(redactor, kind);
  let waiting = Buffer.alloc(0);
  let isRawPack = false;
  const rawPack = redactor.stream();
  for await (const chunk of source) {
    if (isRawPack) {
      yield rawPack.push(chunk);
      continue;
    }
    waiting = waiting.length === 0 ? Buffer.from(chunk) : Buffer.concat([waiting, chunk]);
    const out: Buffer[] = [];
    let offset = 0;
    for (;;) {
      // To a client without side bands the pack comes as it is.
      isRawPack = kind === "fetch" && waiting.toString("latin1", offset, offset + 4) === "PACK";
      if (isRawPack) {
        out.push(rawPack.push(waiting.subarray(offset)));
        offset = waiting.length;
        break;
      }
      const pkt = readAnswerPkt(waiting, offset);
      if (pkt === undefined) break;
      offset += pkt.raw.length;
      out.push(...cleaner.clean(pkt));
    }
    waiting = waiting.subarray(offset);
    yield* whole(out);
  }
  if (waiting.length > 0) throw notPackets();
  yield* [...cleaner.rest(), rawPack.end()];
}

/** Mostly one packet of a pack, which need not be copied. */
function whole(parts: readonly Buffer[]): readonly Buffer[] {
  return parts.length > 1 ? [Buffer.concat(parts)] : parts;
}

/** Lengths stay as they are (`keepsLength`): a report is made of packets inside packets. */
class PacketCleaner {
  readonly #redactor: Redactor;
  readonly #kind: AnswerKind;
  /** A value may begin in one packet of a band and end in the next. */
  readonly #bands = new Map<number, RedactionStream>();

  constructor(redactor: Redactor, kind: AnswerKind) {
    this.#redactor = redactor;
    this.#kind = kind;
  }

  clean({ payload, raw }: Pkt): Buffer[] {
    if (payload === undefined) return [...this.rest(), raw];
    const band = this.#kind === "refs" ? undefined : payload[0];
    if (band === undefined || band < BAND.data || band > BAND.fatal) {
      const text = payload.toString("latin1");
      return [encodePkt(Buffer.from(this.#redactor.text(text), "latin1"))];
    }
    const stream = this.#bands.get(band) ?? this.#redactor.stream();
    this.#bands.set(band, stream);
    return [encodeBand(band, stream.push(payload.subarray(1)))];
  }

  rest(): Buffer[] {
    const held = [...this.#bands].map(([band, stream]) => encodeBand(band, stream.end()));
    this.#bands.clear();
    return held;
  }
}

function readAnswerPkt(bytes: Buffer, offset: number) {
  try {
    return readPkt(bytes, offset);
  } catch {
    throw notPackets();
  }
}

function notPackets(): Error {
  return unusableAnswer("the git host's answer is broken: it is not made of git's packets");
}
