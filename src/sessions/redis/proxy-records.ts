import type { Redis } from "ioredis";
import { z } from "zod";
import type {
  AuditCheckpoint,
  AuditCheckpoints,
  ToolPinKey,
  ToolPinStore,
  ToolPins,
} from "../../protocol/proxy-ports.ts";
import { AppError } from "../../runtime/errors.ts";
import { auditCheckpointsKey, toolPinsKey } from "../keys.ts";

const PINS_SECONDS = 90 * 24 * 3600;
/** A pod keeps one in 5 s at most: a day of 100 busy pods is a tenth more. */
const MAX_CHECKPOINTS = 2_000_000;

const storedPins = z.record(z.string(), z.string());

/** What proxies keep: one string of pins for each revision and server, one stream of checkpoints. */
export class RedisProxyRecords implements ToolPinStore, AuditCheckpoints {
  readonly #connection: Redis;

  constructor(connection: Redis) {
    this.#connection = connection;
  }

  async readPins(key: ToolPinKey): Promise<ToolPins | null> {
    const name = toolPinsKey(key);
    const [json] = await Promise.all([
      this.#connection.get(name),
      this.#connection.expire(name, PINS_SECONDS),
    ]);
    return json === null ? null : parse(name, json);
  }

  async keepPins(key: ToolPinKey, pins: ToolPins): Promise<ToolPins> {
    const name = toolPinsKey(key);
    await this.#connection.set(name, JSON.stringify(pins), "EX", PINS_SECONDS, "NX");
    const json = await this.#connection.get(name);
    if (json === null) throw new AppError("UNAVAILABLE", `"${name}" is gone`, { retryable: true });
    return parse(name, json);
  }

  async keepCheckpoint({ chain, podUid, seq, hash, ts }: AuditCheckpoint): Promise<void> {
    const limit = ["MAXLEN", "~", MAX_CHECKPOINTS] as const;
    const fields = ["chain", chain, "pod_uid", podUid, "seq", seq, "hash", hash, "ts", ts];
    await this.#connection.xadd(auditCheckpointsKey, ...limit, "*", ...fields);
  }
}

/** Throws UNAVAILABLE: what cannot be read is not taken for nothing. */
function parse(name: string, json: string): ToolPins {
  try {
    return storedPins.parse(JSON.parse(json));
  } catch (cause) {
    throw new AppError("UNAVAILABLE", `"${name}" in Redis holds no pinned tools`, { cause });
  }
}
