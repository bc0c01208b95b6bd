import { createHash } from "node:crypto";
import { AppError } from "../runtime/errors.ts";
import type { PoolConfig, PoolRegistration } from "./session-log.ts";

const SLOTS = 16_384;
/** About 2 % of the codes spread 16 tags evenly, so this many tries do not run out. */
const MAX_TRIES = 20_000;

/**
 * Finds a pool's 4-character code: the first candidate of docs/design/session-log.md#names-and-keys
 * whose tags spread evenly over 3 and over 6 masters and which is free or this pool's already.
 * `claim` stores the record if there is none and answers the one that stands.
 */
export async function findPoolCode(
  pool: PoolRegistration,
  claim: (config: PoolConfig) => Promise<PoolConfig>,
): Promise<PoolConfig> {
  if (!Number.isInteger(pool.partitions) || pool.partitions < 1 || pool.partitions > 256) {
    throw new AppError(
      "INPUT_INVALID",
      `harness pool "${pool.name}" asks for ${pool.partitions} partitions; 1 to 256 are possible`,
    );
  }
  for (let i = 0; i < MAX_TRIES; i += 1) {
    const code = candidateCode(pool.uid, i);
    if (!spreadsEvenly(code, pool.partitions)) continue;
    const standing = await claim({ ...pool, code });
    if (standing.uid === pool.uid) return standing;
  }
  throw new AppError("CONFLICT", `no code is free for harness pool "${pool.name}"`);
}

/** base36(sha256(`<uid>:<i>`))[0:4] */
export function candidateCode(uid: string, i: number): string {
  const digest = createHash("sha256").update(`${uid}:${i}`).digest("hex");
  return BigInt(`0x${digest}`).toString(36).slice(0, 4);
}

export function partitionName(partition: number): string {
  return partition.toString(16).padStart(2, "0");
}

function spreadsEvenly(code: string, partitions: number): boolean {
  const slots = Array.from({ length: partitions }, (_, p) => slotOf(`${code}.${partitionName(p)}`));
  const tolerance = Math.max(1, Math.floor(partitions / 16));
  return [3, 6].every((masters) => {
    const load = Array.from({ length: masters }, () => 0);
    for (const slot of slots) {
      const master = Math.floor((slot * masters) / SLOTS);
      load[master] = (load[master] ?? 0) + 1;
    }
    return Math.max(...load) - Math.min(...load) <= tolerance;
  });
}

/** Redis Cluster's key slot of a hash tag: CRC-16/XMODEM modulo 16384. */
export function slotOf(tag: string): number {
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) {
      crc = (crc & 0x8000) === 0 ? (crc << 1) & 0xffff : ((crc << 1) ^ 0x1021) & 0xffff;
    }
  }
  return crc % SLOTS;
}
