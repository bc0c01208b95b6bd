import { z } from "zod";
import {
  byteQuantity,
  conditions,
  cpuQuantity,
  imageName,
  objectName,
  observedGeneration,
} from "./fields.ts";

export const sandboxTemplateSpec = z
  .object({
    image: imageName().describe(
      "Container image: `drover-sandbox`, or one built FROM it. Sandbox pods carry no imagePullSecrets: for a private registry, give the nodes its credentials (the kubelet's credential provider or the container runtime).",
    ),
    imagePullPolicy: z
      .enum(["Always", "IfNotPresent", "Never"])
      .default("IfNotPresent")
      .describe("When the kubelet pulls the image."),
    runtimeClassName: objectName("RuntimeClass")
      .optional()
      .describe("RuntimeClass for stronger isolation, such as gVisor or Kata."),
    resources: z
      .object({
        cpu: cpuQuantity("CPU request; the limit is free so that idle cores are used.").default(
          "20m",
        ),
        memory: byteQuantity("Memory request and limit.").default("512Mi"),
        ephemeralStorage: byteQuantity("Ephemeral storage request and limit.").default("1Gi"),
      })
      .default({ cpu: "20m", memory: "512Mi", ephemeralStorage: "1Gi" })
      .describe(
        "What the tools of one sandbox may use. Its daemon takes 5m of CPU and 64Mi to 192Mi of memory besides.",
      ),
    workspaceSize: byteQuantity("Size limit of `/workspace`.").default("512Mi"),
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
