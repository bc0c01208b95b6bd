import { z } from "zod";
import { conditions, observedGeneration, quantity } from "./fields.ts";

export const sandboxTemplateSpec = z
  .object({
    image: z
      .string()
      .min(1)
      .max(512)
      .regex(/^[^\s]+$/)
      .describe("Container image: `drover-sandbox`, or one built FROM it."),
    imagePullPolicy: z
      .enum(["Always", "IfNotPresent", "Never"])
      .default("IfNotPresent")
      .describe("When the kubelet pulls the image."),
    runtimeClassName: z
      .string()
      .min(1)
      .max(253)
      .optional()
      .describe("RuntimeClass for stronger isolation, such as gVisor or Kata."),
    resources: z
      .object({
        cpu: quantity("CPU request; the limit is free so that idle cores are used.").default("20m"),
        memory: quantity("Memory request and limit.").default("512Mi"),
        ephemeralStorage: quantity("Ephemeral storage request and limit.").default("1Gi"),
      })
      .default({ cpu: "20m", memory: "512Mi", ephemeralStorage: "1Gi" })
      .describe("What one sandbox may use."),
    workspaceSize: quantity("Size limit of `/workspace`.").default("512Mi"),
    setupScript: z
      .string()
      .max(32_768)
      .optional()
      .describe("Bash script run once in `/workspace` before the sandbox takes calls."),
    startDeadlineSeconds: z
      .int()
      .min(5)
      .max(3600)
      .default(120)
      .describe(
        "Seconds a sandbox may take to become ready before the call fails with the reason.",
      ),
    idleTimeoutSeconds: z
      .int()
      .min(0)
      .max(86_400)
      .default(300)
      .describe("Seconds a sandbox is kept after its session went idle."),
  })
  .describe("The standard recipe of a sandbox.");

export const sandboxTemplateStatus = z
  .object({ observedGeneration, conditions })
  .describe("State of the template.");

export type SandboxTemplateSpec = z.output<typeof sandboxTemplateSpec>;
