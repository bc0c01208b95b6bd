import { z } from "zod";
import { vaultSettings } from "../credentials/vault/config.ts";
import { mcpCallSetting } from "../runtime/mcp-settings.ts";
import { redisSettings } from "../runtime/redis-settings.ts";
import { REQUESTS_PER_MINUTE } from "./limits.ts";

const port = z.coerce.number().int().min(0).max(65_535);

/** `host:port,host:port` → the servers that may have private addresses and plain http. */
const hostList = z
  .string()
  .regex(
    /^([a-z0-9][a-z0-9.-]*:\d{1,5}(,[a-z0-9][a-z0-9.-]*:\d{1,5})*)?$/,
    "expected host:port,host:port in lower case",
  )
  .transform((text) => (text === "" ? [] : text.split(",")));

/** Settings of the sidecar. The operator builds its pod from these names. */
export const proxyConfig = z.object({
  port: port.default(7070).meta({
    env: "DROVER_PROXY_PORT",
    description: "Port on 127.0.0.1 for the harness beside it.",
  }),
  healthPort: port.default(9091).meta({
    env: "DROVER_PROXY_HEALTH_PORT",
    description: "Port for health and metrics on the pod's addresses.",
  }),
  healthHost: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_PROXY_HEALTH_HOST",
    description: "Address the health port listens on.",
  }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
  podUid: z
    .string()
    .min(1)
    .max(128)
    .meta({ env: "DROVER_POD_UID", description: "UID of this pod, from the downward API." }),
  modelBaseUrl: z
    .string()
    .regex(/^https?:\/\/[^\s?#@]+$/, "expected an http(s) URL without query or user")
    .default("https://api.anthropic.com")
    .meta({
      env: "DROVER_MODEL_BASE_URL",
      description: "Endpoint that speaks the Messages API; /v1/messages is appended.",
    }),
  modelApiKeyFile: z.string().min(1).optional().meta({
    env: "DROVER_MODEL_API_KEY_FILE",
    description: "File with the model API key, read again when it changes; no key when absent.",
  }),
  modelApiKeyVaultPath: z.string().min(1).optional().meta({
    env: "DROVER_MODEL_API_KEY_VAULT_PATH",
    description: "Path of the model API key in the vault; the file is not read then.",
  }),
  modelApiKeyVaultKey: z.string().min(1).default("api-key").meta({
    env: "DROVER_MODEL_API_KEY_VAULT_KEY",
    description: "Key at that path whose value is the model API key.",
  }),
  issuerUrl: z
    .string()
    .regex(/^https:\/\/[^\s?#@]+$/, "expected an https URL")
    .meta({ env: "DROVER_ISSUER_URL", description: "The operator's issuer." }),
  issuerCertificate: z.string().startsWith("-----BEGIN CERTIFICATE-----").meta({
    env: "DROVER_ISSUER_CERTIFICATE",
    description: "The issuer's own certificate in PEM; nothing else is trusted for it.",
  }),
  issuerTokenFile: z.string().min(1).default("/var/run/secrets/drover/issuer/token").meta({
    env: "DROVER_ISSUER_TOKEN_FILE",
    description: "Projected service account token with audience drover-issuer.",
  }),
  ...redisSettings,
  ...vaultSettings,
  inClusterServers: hostList.default([]).meta({
    env: "DROVER_IN_CLUSTER_SERVERS",
    description: "MCP servers (host:port, comma separated) that may have private addresses.",
  }),
  kubernetesHost: z.string().min(1).default("kubernetes.default.svc").meta({
    env: "KUBERNETES_SERVICE_HOST",
    description: "Kubernetes API host; set by the kubelet.",
  }),
  kubernetesPort: port.default(443).meta({
    env: "KUBERNETES_SERVICE_PORT",
    description: "Kubernetes API port; set by the kubelet.",
  }),
  apiTokenFile: z.string().min(1).default("/var/run/secrets/drover/api/token").meta({
    env: "DROVER_API_TOKEN_FILE",
    description: "Projected service account token for the Kubernetes API.",
  }),
  apiCaFile: z.string().min(1).default("/var/run/secrets/drover/api/ca.crt").meta({
    env: "DROVER_API_CA_FILE",
    description: "Certificate authority of the Kubernetes API.",
  }),
  mcpCallMs: mcpCallSetting,
  maxInFlight: z.coerce.number().int().min(1).max(100_000).default(2000).meta({
    env: "DROVER_PROXY_MAX_IN_FLIGHT",
    description:
      "Requests one sidecar serves at the same time. The default is enough for the most sessions that one worker may have; the operator sets it from the pool's concurrency.",
  }),
  requestsPerMinute: z.coerce
    .number()
    .int()
    .min(1)
    .max(1_000_000)
    .default(REQUESTS_PER_MINUTE)
    .meta({
      env: "DROVER_PROXY_REQUESTS_PER_MINUTE",
      description: "Requests one session may make in a minute.",
    }),
});
export type ProxyConfig = Readonly<z.output<typeof proxyConfig>>;
