import { AppError } from "../../../runtime/errors.ts";

/**
 * Git's framing (gitprotocol-common): four hex digits with the length of the packet, themselves
 * included, then the payload. Lengths 0, 1 and 2 are marks without payload.
 */
export interface Pkt {
  /** Undefined for the marks flush, delimiter and response end. */
  payload: Buffer | undefined;
  /** The packet as it came. */
  raw: Buffer;
}

export const FLUSH = Buffer.from("0000", "latin1");
/** Bands of side-band-64k: the pack or the report, words for people, the last word. */
export const BAND = { data: 1, progress: 2, fatal: 3 } as const;

const HEADER_BYTES = 4;
const MAX_PKT_BYTES = 65_520;

/** The packet at `offset`, or undefined when more bytes are needed. Throws INPUT_INVALID. */
export function readPkt(bytes: Buffer, offset: number): Pkt | undefined {
  if (bytes.length < offset + HEADER_BYTES) return undefined;
  const header = bytes.toString("latin1", offset, offset + HEADER_BYTES);
  const length = /^[0-9a-f]{4}$/i.test(header) ? Number.parseInt(header, 16) : Number.NaN;
  if (length <= 2) {
    return { payload: undefined, raw: bytes.subarray(offset, offset + HEADER_BYTES) };
  }
  if (!(length >= HEADER_BYTES && length <= MAX_PKT_BYTES)) {
    throw new AppError("INPUT_INVALID", "not a packet of git: its length is not four hex digits");
  }
  if (bytes.length < offset + length) return undefined;
  const raw = bytes.subarray(offset, offset + length);
  return { payload: raw.subarray(HEADER_BYTES), raw };
}

export function isFlush({ payload, raw }: Pkt): boolean {
  return payload === undefined && raw.equals(FLUSH);
}

/** One packet; throws INTERNAL when `payload` does not fit into one. */
export function encodePkt(payload: string | Uint8Array): Buffer {
  const bytes = Buffer.from(payload);
  const length = bytes.length + HEADER_BYTES;
  if (length > MAX_PKT_BYTES) throw new AppError("INTERNAL", "a packet of git is too long");
  return Buffer.concat([Buffer.from(length.toString(16).padStart(4, "0"), "latin1"), bytes]);
}

/** As many packets of one band as the payload takes. */
export function encodeBand(band: number, payload: string | Uint8Array): Buffer {
  const bytes = Buffer.from(payload);
  const most = MAX_PKT_BYTES - HEADER_BYTES - 1;
  const packets: Buffer[] = [];
  for (let from = 0; from < bytes.length; from += most) {
    const part = bytes.subarray(from, from + most);
    packets.push(encodePkt(Buffer.concat([Buffer.of(band), part])));
  }
  return Buffer.concat(packets);
}
