import { z } from "zod";
import {
  byteQuantity,
  conditions,
  cpuQuantity,
  formatted,
  httpUrl,
  imageName,
  objectName,
  observedGeneration,
  rules,
  secretKey,
  vaultKey,
  vaultPath,
} from "./fields.ts";

export const harnessPoolSpec = z
  .object({
    replicas: z.int().min(0).max(1000).default(2).describe("Number of harness pods."),
    concurrency: z
      .int()
      .min(1)
      .max(1000)
      .default(50)
      .describe("Sessions one harness pod works on at the same time."),
    image: imageName().optional().describe("Harness image; the operator's own when absent."),
    model: z
      .object({
        baseUrl: httpUrl()
          .default("https://api.anthropic.com")
          .describe("Endpoint that speaks the Messages API."),
        apiKeySecret: z
          .object({
            name: objectName("Secret"),
            key: secretKey().default("api-key"),
          })
          .optional()
          .describe(
            "Secret of the install namespace with the model API key, mounted in the proxy container only; without it requests carry no key.",
          ),
        apiKeyVaultRef: z
          .object({
            path: vaultPath().describe(
              "Path in the vault's KV store, such as `pools/default/model`.",
            ),
            key: vaultKey().default("api-key"),
          })
          .optional()
          .describe(
            "Secret of the vault with the model API key, read by the proxy with the pool's own identity.",
          ),
      })
      .meta(
        rules({
          rule: "!has(self.apiKeySecret) || !has(self.apiKeyVaultRef)",
          message: "`apiKeySecret` and `apiKeyVaultRef` must not be set together",
        }),
      )
      .default({ baseUrl: "https://api.anthropic.com" })
      .describe("Where model requests go."),
    mcpCallTimeoutSeconds: z
      .int()
      .min(1)
      .max(3600)
      .default(300)
      .describe("Seconds a call of an MCP tool may take; then its outcome counts as unknown."),
    inClusterServers: z
      .array(
        z
          .object({
            host: formatted(
              253,
              "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
              "must be a host name or an IPv4 address, without port",
            ).describe("Host name as it stands in the MCP server's URL."),
            port: z.int().min(1).max(65_535).describe("Port."),
          })
          .describe("A server inside the cluster."),
      )
      .max(64)
      .optional()
      .describe(
        "In-cluster MCP servers that sessions of this pool may reach; all other private addresses are refused.",
      ),
    allowedNamespaces: z
      .object({
        from: z
          .enum(["Same", "All", "Selector"])
          .default("Same")
          .describe(
            "`Same`: only the pool's own namespace. `All`: every one. `Selector`: by labels.",
          ),
        selector: z
          .object({
            matchLabels: z
              .record(z.string().max(317), z.string().max(63))
              .meta({ minProperties: 1, maxProperties: 32 })
              .describe("Labels a namespace must carry."),
          })
          .optional()
          .describe("For `Selector`: which namespaces."),
      })
      .default({ from: "Same" })
      .meta(
        rules({
          rule: "(self.from == 'Selector') == has(self.selector)",
          message: "`selector` must be set for `from: Selector`, and for no other",
        }),
      )
      .describe("Which namespaces' sessions this pool serves."),
    partitions: z
      .int()
      .min(1)
      .max(256)
      .default(16)
      .meta(
        rules({
          rule: "self == oldSelf",
          message: "`partitions` must not be changed; create a new HarnessPool",
        }),
      )
      .describe("Redis partitions of the pool's sessions; must not be changed."),
    resources: z
      .object({
        cpu: cpuQuantity("CPU request of the harness container.").default("100m"),
        memory: byteQuantity("Memory request and limit of the harness container.").default("512Mi"),
      })
      .default({ cpu: "100m", memory: "512Mi" })
      .describe("What one harness container may use."),
  })
  .describe("A group of stateless workers that run sessions.");

export const harnessPoolStatus = z
  .object({
    observedGeneration,
    replicas: z.int().min(0).optional().describe("Pods that exist."),
    readyReplicas: z.int().min(0).optional().describe("Pods that are ready."),
    selector: z.string().max(1024).optional().describe("Label selector of the pods, for `/scale`."),
    code: z.string().max(8).optional().describe("The pool's code in Redis keys and session ids."),
    conditions,
  })
  .describe("State of the pool.");

export type HarnessPoolSpec = z.output<typeof harnessPoolSpec>;
export type HarnessPoolStatus = z.output<typeof harnessPoolStatus>;
