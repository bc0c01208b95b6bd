import type { Redis } from "ioredis";
import { AppError, describeError } from "../../runtime/errors.ts";
import type { ScriptName, Scripts } from "../scripts.ts";

export type ScriptArg = string | number;

/** By hash; a server that does not know the script (restart, failover) gets its text. */
export async function runScript(
  connection: Redis,
  scripts: Scripts,
  name: ScriptName,
  call: { keys: readonly string[]; args: readonly ScriptArg[] },
): Promise<unknown> {
  const { sha1, lua } = scripts[name];
  try {
    return await connection.evalsha(sha1, call.keys.length, ...call.keys, ...call.args);
  } catch (error) {
    if (!describeError(error).startsWith("NOSCRIPT")) throw error;
    return await connection.eval(lua, call.keys.length, ...call.keys, ...call.args);
  }
}

/** A reply that is a flat list of texts and numbers, as texts. */
export function textsOf(reply: unknown): string[] {
  if (!Array.isArray(reply)) throw unexpected(reply);
  return reply.map((item: unknown) => {
    if (typeof item !== "string" && typeof item !== "number") throw unexpected(item);
    return String(item);
  });
}

/** A reply that is a list of lists. */
export function listsOf(reply: unknown): string[][] {
  if (!Array.isArray(reply)) throw unexpected(reply);
  return reply.map(textsOf);
}

export function unexpected(reply: unknown): AppError {
  return new AppError("INTERNAL", `Redis answered something unexpected (${typeof reply})`);
}
