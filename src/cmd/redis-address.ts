import type { Secret } from "../runtime/secret.ts";
import type { RedisAddress } from "../sessions/redis/connection.ts";

/** What the settings of a process say about reaching Redis. */
export function redisAddress(config: {
  redisUrl: string;
  redisUsername?: string | undefined;
  redisPassword?: Secret | undefined;
  redisCa?: string | undefined;
}): RedisAddress {
  const { redisUrl: url, redisUsername: username, redisPassword: password, redisCa: ca } = config;
  return { url, username, password, tls: ca === undefined ? undefined : { ca } };
}
