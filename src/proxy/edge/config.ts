import { z } from "zod";
import { vaultSettings } from "../../credentials/vault/config.ts";
import { proxyConfig } from "../config.ts";

/** Settings of the edge. The operator builds its pods from these names. */
export const edgeConfig = z.object({
  port: z.coerce.number().int().min(0).max(65_535).default(7080).meta({
    env: "DROVER_EDGE_PORT",
    description: "Port for git in the sandboxes.",
  }),
  host: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_EDGE_HOST",
    description: "Address that port listens on.",
  }),
  ...proxyConfig.pick({
    healthPort: true,
    healthHost: true,
    logLevel: true,
    podUid: true,
    issuerUrl: true,
    issuerCertificate: true,
    issuerTokenFile: true,
    redisUrl: true,
    redisUsername: true,
    redisPassword: true,
    redisCa: true,
    kubernetesHost: true,
    kubernetesPort: true,
    apiTokenFile: true,
    apiCaFile: true,
    requestsPerMinute: true,
  }).shape,
  ...vaultSettings,
  maxInFlight: proxyConfig.shape.maxInFlight.unwrap().default(256).meta({
    env: "DROVER_PROXY_MAX_IN_FLIGHT",
    description: "Requests one edge serves at the same time.",
  }),
  inClusterServers: proxyConfig.shape.inClusterServers.meta({
    env: "DROVER_IN_CLUSTER_SERVERS",
    description:
      "Git hosts (host:port, comma separated) that may have private addresses and plain http.",
  }),
});
export type EdgeConfig = Readonly<z.output<typeof edgeConfig>>;
