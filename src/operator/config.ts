import { z } from "zod";
import { PORTS } from "../api/names.ts";
import { redisSettings } from "../runtime/redis-settings.ts";
import { vaultAccessSettings } from "../runtime/vault-settings.ts";
import { commitSetting } from "../sessions/commit-mode.ts";

const port = z.coerce.number().int().min(0).max(65_535);
const name = z.string().min(1).max(253);
const quantity = z
  .string()
  .regex(/^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$/, "expected a quantity");
const list = z
  .string()
  .default("")
  .transform((text) => text.split(",").filter((one) => one !== ""));

/** Handed on to proxies; the operator asks no vault. */
const vaultAccess = {
  ...vaultAccessSettings,
  vaultCaSecret: name.optional().meta({
    env: "DROVER_VAULT_CA_SECRET",
    description: "Secret that proxies mount for the authorities of its certificate.",
  }),
  vaultCaSecretKey: name.default("ca.crt").meta({
    env: "DROVER_VAULT_CA_SECRET_KEY",
    description: "Key inside that Secret.",
  }),
};

const redisUsername = (prefix: string, process: string) =>
  z
    .string()
    .min(1)
    .optional()
    .meta({
      env: `DROVER_REDIS_${prefix}_USERNAME`,
      description: `Redis user of the ${process}; the operator's own when absent.`,
    });

const redisSecretKey = (prefix: string, process: string) =>
  name.optional().meta({
    env: `DROVER_REDIS_${prefix}_SECRET_KEY`,
    description: `Key of the ${process}'s password inside DROVER_REDIS_SECRET; DROVER_REDIS_SECRET_KEY when absent.`,
  });

/** Settings of the operator; the chart sets them. */
export const operatorConfig = z.object({
  namespace: name.meta({
    env: "DROVER_NAMESPACE",
    description: "Namespace in which Drover is installed; pools work only there.",
  }),
  podName: name.meta({
    env: "DROVER_POD_NAME",
    description: "Name of this pod: its identity in the lease and in Events.",
  }),
  image: z.string().min(1).max(512).meta({
    env: "DROVER_IMAGE",
    description: "Control-plane image, for the pods of harness pools and of the edge.",
  }),
  imagePullPolicy: z.enum(["Always", "IfNotPresent", "Never"]).default("IfNotPresent").meta({
    env: "DROVER_IMAGE_PULL_POLICY",
    description: "When the kubelet pulls that image.",
  }),
  imagePullSecrets: list.meta({
    env: "DROVER_IMAGE_PULL_SECRETS",
    description: "Names of registry Secrets for that image, comma separated.",
  }),
  ...redisSettings,
  redisSecret: name.optional().meta({
    env: "DROVER_REDIS_SECRET",
    description: "Secret with the Redis passwords of the pods it makes; none when absent.",
  }),
  redisSecretKey: name.default("password").meta({
    env: "DROVER_REDIS_SECRET_KEY",
    description: "Key inside that Secret, for processes without one of their own.",
  }),
  redisHarnessUsername: redisUsername("HARNESS", "harness"),
  redisHarnessSecretKey: redisSecretKey("HARNESS", "harness"),
  redisProxyUsername: redisUsername("PROXY", "proxy"),
  redisProxySecretKey: redisSecretKey("PROXY", "proxy"),
  redisEdgeUsername: redisUsername("EDGE", "edge"),
  redisEdgeSecretKey: redisSecretKey("EDGE", "edge"),
  redisCaSecret: name.optional().meta({
    env: "DROVER_REDIS_CA_SECRET",
    description: "Secret that harness pods mount for those authorities; none when absent.",
  }),
  redisCaSecretKey: name.default("ca.crt").meta({
    env: "DROVER_REDIS_CA_SECRET_KEY",
    description: "Key inside that Secret.",
  }),
  redisCommit: commitSetting,
  leaseTtlMs: z.coerce.number().int().min(100).max(60_000).default(800).meta({
    env: "DROVER_LEASE_TTL_MS",
    description: "Milliseconds after which a worker's unrenewed lease may be taken.",
  }),
  leaseRenewMs: z.coerce.number().int().min(20).max(20_000).default(200).meta({
    env: "DROVER_LEASE_RENEW_MS",
    description: "Milliseconds between renewals of a worker's lease.",
  }),
  ...vaultAccess,
  edgeReplicas: z.coerce.number().int().min(0).max(100).default(2).meta({
    env: "DROVER_EDGE_REPLICAS",
    description: "Pods of the edge, through which sandboxes clone and push; 0 turns it off.",
  }),
  edgeInClusterServers: list.meta({
    env: "DROVER_EDGE_IN_CLUSTER_SERVERS",
    description: "Git servers (host:port, comma separated) that may have private addresses.",
  }),
  edgeCpu: quantity.default("50m").meta({
    env: "DROVER_EDGE_CPU",
    description: "CPU request of an edge pod.",
  }),
  edgeMemory: quantity.default("256Mi").meta({
    env: "DROVER_EDGE_MEMORY",
    description: "Memory request and limit of an edge pod.",
  }),
  issuerUrl: z.string().startsWith("https://").meta({
    env: "DROVER_ISSUER_URL",
    description: "Where proxies reach the issuer: the Service of the operator.",
  }),
  issuerSecret: name.default("drover-issuer-key").meta({
    env: "DROVER_ISSUER_SECRET",
    description: "Secret with the issuer's keys; filled when it is empty.",
  }),
  issuerPort: port.default(PORTS.issuer).meta({
    env: "DROVER_ISSUER_PORT",
    description: "Port of the issuer.",
  }),
  healthPort: port.default(PORTS.health).meta({
    env: "DROVER_HEALTH_PORT",
    description: "Port of /livez, /readyz and /metrics.",
  }),
  host: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_HOST",
    description: "Address the issuer and the health port listen on.",
  }),
  userNamespaces: z.stringbool().default(false).meta({
    env: "DROVER_SANDBOX_USER_NAMESPACES",
    description: "Run sandboxes in user namespaces (hostUsers: false).",
  }),
  leaderElection: z.stringbool().default(true).meta({
    env: "DROVER_LEADER_ELECTION",
    description: "Take a Lease before the controllers start; off only for a single process.",
  }),
  kubeconfig: z.string().min(1).optional().meta({
    env: "DROVER_KUBECONFIG",
    description: "Kubeconfig file; the pod's own service account when absent.",
  }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged, here and in harness pods.",
  }),
});
export type OperatorConfig = Readonly<z.output<typeof operatorConfig>>;
