import { z } from "zod";
import {
  conditions,
  entryName,
  formatted,
  httpUrl,
  keyedBy,
  objectName,
  observedGeneration,
  rules,
  secretKey,
} from "./fields.ts";

export const credentialVaultSpec = z
  .object({
    entries: z
      .array(
        z
          .object({
            name: entryName("Name of the entry, for status and audit."),
            mcpServerUrl: httpUrl().describe(
              "The MCP server this credential is for; it is sent nowhere else.",
            ),
            secretRef: z
              .object({
                name: objectName("Secret"),
                key: secretKey().default("token"),
              })
              .describe("Where the value is: a Secret in this namespace. Never the value itself."),
            header: formatted(
              64,
              "^[A-Za-z][A-Za-z0-9-]*$",
              "must be the name of a request header: letters, digits and `-`",
            )
              .default("Authorization")
              .describe("Request header that carries the credential."),
            scheme: formatted(
              32,
              "^[A-Za-z0-9-]*$",
              "must consist of letters, digits and `-`, or be empty",
            )
              .default("Bearer")
              .describe("Word before the value in the header; empty for none."),
          })
          .describe("One credential: where it is and what it is for."),
      )
      .min(1)
      .max(64)
      .meta({
        ...keyedBy("name"),
        ...rules({
          rule: "self.all(a, self.exists_one(b, b.mcpServerUrl == a.mcpServerUrl))",
          message: "each `mcpServerUrl` must be there once only",
        }),
      })
      .describe("The credentials; one per MCP server URL."),
  })
  .describe("Which credentials serve which MCP server.");

export const credentialVaultStatus = z
  .object({ observedGeneration, conditions })
  .describe("Whether the entries can be used; never what they are.");

export type CredentialVaultSpec = z.output<typeof credentialVaultSpec>;
