import type { Redis } from "ioredis";
import { z } from "zod";
import {
  bindingKey,
  type PartitionKeys,
  poolConfigKey,
  poolPartitions,
  refOfMember,
  sessionKeys,
} from "../keys.ts";
import { findPoolCode } from "../pool-code.ts";
import type { Scripts } from "../scripts.ts";
import {
  LOG_STATUSES,
  type PoolConfig,
  type PoolKey,
  type PoolRegistration,
  type SandboxBinding,
  type SandboxRequest,
  type SessionRef,
  type StateChange,
} from "../session-log.ts";
import { runScript, unexpected } from "./script-runner.ts";

const SCHEMA_VERSION = "1";

const openRequest = z.object({
  member: z.string(),
  kind: z.enum(["provision", "release"]),
  hand: z.string(),
  generation: z.number(),
});
const boundTo = z.object({ tenant: z.string(), sessionId: z.string() });
const openChange = z.object({
  state: z.enum(LOG_STATUSES),
  reason: z.string(),
  seq: z.number(),
  ts: z.number(),
});
const commitMode = z.union([
  z.object({ mode: z.literal("fsync") }),
  z.object({ mode: z.literal("replicas"), n: z.number() }),
  z.object({ mode: z.literal("provider") }),
]);

/** The tables of partitions and pools that the operator works from. */
export class OperatorTables {
  readonly #connection: Redis;
  readonly #scripts: Scripts;
  #partitions: PartitionKeys[] = [];

  constructor(connection: Redis, scripts: Scripts, pools: readonly PoolKey[]) {
    this.#connection = connection;
    this.#scripts = scripts;
    this.watchPools(pools);
  }

  get partitions(): readonly PartitionKeys[] {
    return this.#partitions;
  }

  watchPools(pools: readonly PoolKey[]): void {
    this.#partitions = pools.flatMap(poolPartitions);
  }

  async openRequests(): Promise<SandboxRequest[]> {
    const tables = await Promise.all(
      this.#partitions.map(({ hands }) => this.#connection.hgetall(hands)),
    );
    return tables.flatMap((table) =>
      Object.entries(table).flatMap(([requestId, json]) => {
        const { data } = openRequest.safeParse(parseJson(json));
        if (data === undefined) return [];
        const { member, ...request } = data;
        return [{ ref: refOfMember(member), requestId, ...request }];
      }),
    );
  }

  async answered(request: SandboxRequest): Promise<void> {
    await this.#connection.hdel(sessionKeys(request.ref).hands, request.requestId);
  }

  async openChanges(): Promise<StateChange[]> {
    const tables = await Promise.all(
      this.#partitions.map(({ state }) => this.#connection.hgetall(state)),
    );
    return tables.flatMap((table) =>
      Object.entries(table).flatMap(([member, json]) => {
        const { data } = openChange.safeParse(parseJson(json));
        if (data === undefined) return [];
        const { state: status, reason: why, seq, ts } = data;
        return [{ ref: refOfMember(member), status, why, seq, ts }];
      }),
    );
  }

  /** The record is compared as text, so it is written here as the scripts write it. */
  async ackState(change: StateChange): Promise<void> {
    const { state, member } = sessionKeys(change.ref);
    const { status, why, seq, ts } = change;
    const record = JSON.stringify({ state: status, reason: why, seq, ts });
    const call = { keys: [state], args: [member, record] };
    await runScript(this.#connection, this.#scripts, "ack-state", call);
  }

  async registerPool(pool: PoolRegistration): Promise<PoolConfig> {
    return await findPoolCode(pool, async ({ code, uid, name, partitions, commit }) => {
      const args = [uid, name, partitions, SCHEMA_VERSION, JSON.stringify(commit)];
      const call = { keys: [poolConfigKey(code)], args };
      const reply = await runScript(this.#connection, this.#scripts, "register-pool", call);
      if (!Array.isArray(reply)) throw unexpected(reply);
      return configFrom(code, reply);
    });
  }

  async poolConfig(code: string): Promise<PoolConfig | null> {
    const fields = ["uid", "name", "partitions", "commit"];
    const record = await this.#connection.hmget(poolConfigKey(code), ...fields);
    return record[0] === null ? null : configFrom(code, record);
  }

  /**
   * The list of a session's sandboxes first, so that its deletion finds what is bound. A session
   * that went in between takes the binding along: nobody would remove it later.
   */
  async bindSandbox(sandboxId: string, binding: SandboxBinding): Promise<void> {
    const { meta, bound } = sessionKeys({ tenant: binding.tenant, id: binding.sessionId });
    await this.#connection.sadd(bound, sandboxId);
    await this.#connection.set(bindingKey(sandboxId), JSON.stringify(binding));
    if ((await this.#connection.exists(meta)) === 0) {
      await this.#connection.del(bindingKey(sandboxId));
      await this.#connection.del(bound);
    }
  }

  async unbindSandbox(sandboxId: string): Promise<void> {
    const key = bindingKey(sandboxId);
    const { data } = boundTo.safeParse(parseJson((await this.#connection.get(key)) ?? ""));
    await this.#connection.del(key);
    if (data === undefined) return;
    const { bound } = sessionKeys({ tenant: data.tenant, id: data.sessionId });
    await this.#connection.srem(bound, sandboxId);
  }

  /** Before the session itself goes: their list goes with it. They lie in other slots, hence one by one. */
  async unbindAll(ref: SessionRef): Promise<void> {
    const ids = await this.#connection.smembers(sessionKeys(ref).bound);
    await Promise.all(ids.map((id) => this.#connection.del(bindingKey(id))));
  }
}

/** Any harness of a pool can write these tables, so one bad record must not hide the others. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const configRecord = z.tuple([z.string(), z.string(), z.coerce.number(), z.string()]);

function configFrom(code: string, record: unknown): PoolConfig {
  const [uid, name, partitions, commit] = configRecord.parse(record);
  return { code, uid, name, partitions, commit: commitMode.parse(JSON.parse(commit)) };
}
