import { z } from "zod";
import { conditions, objectName, observedGeneration } from "./fields.ts";

export const credentialVaultSpec = z
  .object({
    entries: z
      .array(
        z
          .object({
            name: z
              .string()
              .min(1)
              .max(63)
              .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/)
              .describe("Name of the entry, for status and audit."),
            mcpServerUrl: z
              .string()
              .min(1)
              .max(2048)
              .regex(/^https?:\/\/[^\s]+$/)
              .describe("The MCP server this credential is for; it is sent nowhere else."),
            secretRef: z
              .object({
                name: objectName("Secret"),
                key: z.string().min(1).max(253).default("token").describe("Key inside the Secret."),
              })
              .describe("Where the value is: a Secret in this namespace. Never the value itself."),
            header: z
              .string()
              .min(1)
              .max(64)
              .regex(/^[A-Za-z][A-Za-z0-9-]*$/)
              .default("Authorization")
              .describe("Request header that carries the credential."),
            scheme: z
              .string()
              .max(32)
              .regex(/^[A-Za-z0-9-]*$/)
              .default("Bearer")
              .describe("Word before the value in the header; empty for none."),
          })
          .describe("One credential: where it is and what it is for."),
      )
      .min(1)
      .max(64)
      .meta({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] })
      .describe("The credentials; one per MCP server URL."),
  })
  .describe("Which credentials serve which MCP server.");

export const credentialVaultStatus = z
  .object({ observedGeneration, conditions })
  .describe("Whether the entries can be used; never what they are.");

export type CredentialVaultSpec = z.output<typeof credentialVaultSpec>;
