import { z } from "zod";
import {
  conditions,
  entryName,
  formatted,
  httpUrl,
  immutable,
  keyedBy,
  objectName,
  observedGeneration,
  optionalTime,
  repositoryUrl,
  rules,
  secretKey,
  type ValidationRule,
  vaultKey,
  vaultPath,
} from "./fields.ts";

/** What may stand in `modelProvider`: the one API whose key the proxy can add. */
const MODEL_PROVIDERS = ["anthropic"] as const;

/** Of an entry, which is known by its name: for whom the value is, and where it is. */
const DESTINATION_AND_SOURCE = [
  "mcpServerUrl",
  "repositoryUrl",
  "modelProvider",
  "secretRef",
  "vaultRef",
] as const;

export const credentialVaultSpec = z
  .object({
    entries: z
      .array(
        z
          .object({
            name: entryName("Name of the entry, for status and audit."),
            mcpServerUrl: httpUrl()
              .optional()
              .describe("The MCP server this credential is for; it is sent nowhere else."),
            repositoryUrl: repositoryUrl()
              .optional()
              .describe("The git repository this credential is for; it is sent nowhere else."),
            modelProvider: z
              .enum(MODEL_PROVIDERS)
              .optional()
              .describe(
                "The model endpoint of the harness pool: requests of the session carry this key in place of the pool's.",
              ),
            secretRef: z
              .object({
                name: objectName("Secret"),
                key: secretKey().default("token"),
              })
              .optional()
              .describe("Where the value is: a Secret in this namespace. Never the value itself."),
            vaultRef: z
              .object({
                path: vaultPath().describe(
                  "Path below `t/<namespace>/v/<name of this object>/` in the vault's KV store.",
                ),
                key: vaultKey().default("token"),
              })
              .optional()
              .describe("Where the value is: a secret in the vault of the install."),
            header: formatted(
              64,
              "^[A-Za-z][A-Za-z0-9-]*$",
              "must be the name of a request header: letters, digits and `-`",
            )
              .default("Authorization")
              .describe("For `mcpServerUrl`: request header that carries the credential."),
            scheme: formatted(
              32,
              "^[A-Za-z0-9-]*$",
              "must consist of letters, digits and `-`, or be empty",
            )
              .default("Bearer")
              .describe("For `mcpServerUrl`: word before the value in the header; empty for none."),
          })
          .meta(
            rules(
              {
                rule: "(has(self.mcpServerUrl) ? 1 : 0) + (has(self.repositoryUrl) ? 1 : 0) + (has(self.modelProvider) ? 1 : 0) == 1",
                message:
                  "exactly one of `mcpServerUrl`, `repositoryUrl` and `modelProvider` must be set",
              },
              {
                rule: "has(self.secretRef) != has(self.vaultRef)",
                message: "exactly one of `secretRef` and `vaultRef` must be set",
              },
              // Or whoever may change an entry has its value sent to a host of their own, or reads another.
              ...DESTINATION_AND_SOURCE.map((field) => immutable(field, "entry")),
            ),
          )
          .describe("One credential: where it is and what it is for."),
      )
      .min(1)
      .max(64)
      .meta({
        ...keyedBy("name"),
        ...rules(onceOnly("mcpServerUrl"), onceOnly("repositoryUrl"), onceOnly("modelProvider")),
      })
      .describe("The credentials; one for each MCP server, repository and model provider."),
  })
  .describe("Which credentials serve which MCP server, repository or model provider.");

function onceOnly(field: string): ValidationRule {
  return {
    rule: `self.all(a, !has(a.${field}) || self.exists_one(b, has(b.${field}) && b.${field} == a.${field}))`,
    message: `each \`${field}\` must be there once only`,
  };
}

export const credentialVaultStatus = z
  .object({
    observedGeneration,
    entries: z
      .array(
        z
          .object({
            name: z.string().max(63).describe("Name of the entry."),
            resolved: z
              .enum(["True", "False", "Unknown"])
              .describe("Whether the proxy could read it when it last tried; Unknown before."),
            reason: z
              .string()
              .max(64)
              .describe(
                "One word for machines: `Resolved`, `NotChecked`, `CredentialNotFound`, `CredentialUnavailable`, `AccessDenied` or `InvalidReference`.",
              ),
            message: z.string().max(1024).describe("One sentence for people; empty when resolved."),
            version: z
              .string()
              .max(64)
              .optional()
              .describe("Changes whenever the value does; says nothing about it."),
            lastReadTime: optionalTime("When the proxy last tried, to within five minutes."),
          })
          .describe("State of one entry."),
      )
      .max(64)
      .optional()
      .meta(keyedBy("name"))
      .describe("Entry by entry, as the proxies that read them tell."),
    conditions,
  })
  .describe("Whether the entries can be used; never what they are.");

export type CredentialVaultSpec = z.output<typeof credentialVaultSpec>;
export type CredentialVaultStatus = z.output<typeof credentialVaultStatus>;
