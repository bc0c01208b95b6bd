import { randomBytes } from "node:crypto";

/** Randomness enters through this port, so that a seed replays a whole run. */
export interface Rng {
  /** A number in [0, 1). */
  next(): number;
  /** `<prefix>_<UUIDv7>`: unique, and sorts by the time it was made. */
  id(prefix: string): string;
}

/** UUID version 7 (RFC 9562 §5.7) from a time in epoch ms and ten random bytes. */
export function uuidv7(nowMs: number, random: Uint8Array): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes.set(random.subarray(0, 10), 6);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join("-");
}

export const systemRng: Rng = {
  next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
  id: (prefix) => `${prefix}_${uuidv7(Date.now(), randomBytes(10))}`,
};
