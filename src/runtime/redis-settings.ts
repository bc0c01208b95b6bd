import { z } from "zod";
import { authoritiesField, secretField } from "./config.ts";

/** How a process reaches Redis: the same settings in operator, harness and proxy. */
export const redisSettings = {
  redisUrl: z.string().min(1).meta({
    env: "DROVER_REDIS_URL",
    description: "redis:// or rediss:// address of the session log, without a password.",
  }),
  redisUsername: z.string().min(1).optional().meta({
    env: "DROVER_REDIS_USERNAME",
    description: "Redis user; the default user when absent.",
  }),
  redisPassword: secretField(
    "DROVER_REDIS_PASSWORD",
    "Password of the Redis user; none when absent.",
  ).optional(),
  redisCa: authoritiesField(
    "DROVER_REDIS_CA",
    "Authorities of a rediss:// address, in PEM; the public ones when absent.",
  ).optional(),
};
