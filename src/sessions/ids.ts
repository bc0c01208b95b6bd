import { createHash } from "node:crypto";
import { AppError } from "../runtime/errors.ts";

/**
 * `sesn_<pool><p>_<26 base32 characters>`: an id alone names its pool (4-character code) and
 * partition (two hex digits), hence its Redis slot (docs/design/session-log.md#names-and-keys).
 */
export interface SessionIdParts {
  pool: string;
  partition: string;
  unique: string;
}

const PATTERN = /^sesn_([0-9a-z]{4})([0-9a-f]{2})_([0-9a-hjkmnp-tv-z]{26})$/;
const CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz";

export function parseSessionId(id: string): SessionIdParts {
  const match = PATTERN.exec(id);
  if (match === null) {
    throw new AppError("SESSION_NOT_FOUND", `"${id}" is not a session id`);
  }
  return { pool: match[1] ?? "", partition: match[2] ?? "", unique: match[3] ?? "" };
}

/** The id of the session an object with this UID stands for: the same after any restart. */
export function derivedSessionId(
  objectUid: string,
  pool: { code: string; partitions: number },
): string {
  const digest = digestOf(objectUid);
  const partition = (digest.readUInt32BE(16) % pool.partitions).toString(16).padStart(2, "0");
  return `sesn_${pool.code}${partition}_${uniqueOf(digest)}`;
}

/** True for the ids that `derivedSessionId` can give this object, whatever its pool; false for text that is no id. */
export function isDerivedFrom(id: string, objectUid: string): boolean {
  return PATTERN.exec(id)?.[3] === uniqueOf(digestOf(objectUid));
}

function digestOf(objectUid: string): Buffer {
  return createHash("sha256").update(objectUid).digest();
}

function uniqueOf(digest: Buffer): string {
  return base32(digest.subarray(0, 16));
}

/** 128 bits as 26 characters of Crockford's base 32. */
function base32(bytes: Uint8Array): string {
  let value = BigInt(`0x${Buffer.from(bytes).toString("hex")}`);
  let text = "";
  for (let i = 0; i < 26; i += 1) {
    text = (CROCKFORD[Number(value & 31n)] ?? "") + text;
    value >>= 5n;
  }
  return text;
}
