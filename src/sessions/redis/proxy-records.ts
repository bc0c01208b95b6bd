import type { Redis } from "ioredis";
import { z } from "zod";
import type {
  CheckpointStore,
  ToolPinKey,
  ToolPinStore,
  ToolPins,
} from "../../protocol/proxy-ports.ts";
import { AppError } from "../../runtime/errors.ts";
import { auditCheckpointsKey, toolPinsKey } from "../keys.ts";

const PINS_SECONDS = 90 * 24 * 3600;
/** A pod has one in 5 s at most: half a day of 100 busy pods, and half a gigabyte. */
const MAX_CHECKPOINTS = 1_000_000;

const storedPins = z.record(z.string(), z.string());

/** One string of pins for each revision and server, of the proxies; one stream of checkpoints, of the issuer. */
export class RedisProxyRecords implements ToolPinStore, CheckpointStore {
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

  async appendCheckpoint(signed: string): Promise<void> {
    const limit = ["MAXLEN", "~", MAX_CHECKPOINTS] as const;
    await this.#connection.xadd(auditCheckpointsKey, ...limit, "*", "checkpoint", signed);
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
