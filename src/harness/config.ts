import { z } from "zod";
import { PORTS } from "../api/names.ts";
import { mcpCallSetting } from "../runtime/mcp-settings.ts";
import { redisSettings } from "../runtime/redis-settings.ts";
import { commitSetting } from "../sessions/commit-mode.ts";

const ms = (env: string, description: string, fallback: number) =>
  z.coerce.number().int().min(1).max(3_600_000).default(fallback).meta({ env, description });

export const harnessConfig = z.object({
  ...redisSettings,
  redisCommit: commitSetting,
  poolCode: z
    .string()
    .regex(/^[0-9a-z]{4}$/)
    .meta({
      env: "DROVER_POOL_CODE",
      description: "The pool's four-character code in Redis keys.",
    }),
  partitions: z.coerce.number().int().min(1).max(256).default(16).meta({
    env: "DROVER_POOL_PARTITIONS",
    description: "Redis partitions of the pool.",
  }),
  workerId: z.string().min(1).max(253).meta({
    env: "DROVER_WORKER_ID",
    description: "Name of this worker in leases: the pod's UID.",
  }),
  concurrency: z.coerce.number().int().min(1).max(1000).default(50).meta({
    env: "DROVER_CONCURRENCY",
    description: "Sessions worked on at the same time.",
  }),
  proxyUrl: z
    .string()
    .regex(/^https?:\/\/[^\s]+[^/]$/)
    .default(`http://127.0.0.1:${PORTS.proxy}`)
    .meta({
      env: "DROVER_PROXY_URL",
      description: "Address of the proxy sidecar, without a slash at its end.",
    }),
  edgeUrl: z
    .string()
    .regex(/^https?:\/\/[^\s/]+$/)
    .optional()
    .meta({
      env: "DROVER_EDGE_URL",
      description:
        "Address of the edge, without a slash at its end; sandboxes reach their git repositories there. Without it no repository is cloned.",
    }),
  leaseTtlMs: ms(
    "DROVER_LEASE_TTL_MS",
    "Milliseconds after which an unrenewed lease may be taken.",
    800,
  ),
  leaseRenewMs: ms("DROVER_LEASE_RENEW_MS", "Milliseconds between renewals of a lease.", 200),
  pollMs: ms("DROVER_POLL_MS", "Longest time between two looks for work, in milliseconds.", 100),
  graceMs: ms(
    "DROVER_GRACE_MS",
    "Milliseconds a session gets to come to a boundary at shutdown.",
    20_000,
  ),
  mcpCallMs: mcpCallSetting,
  healthHost: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_HEALTH_HOST",
    description: "Address of /livez, /readyz and /metrics.",
  }),
  healthPort: z.coerce.number().int().min(0).max(65_535).default(PORTS.health).meta({
    env: "DROVER_HEALTH_PORT",
    description: "Port of /livez, /readyz and /metrics.",
  }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
});
