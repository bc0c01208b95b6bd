import { z } from "zod";

/** A DNS subdomain name of a Kubernetes object, as `metadata.name` accepts it. */
export function objectName(kind: string) {
  return z
    .string()
    .min(1)
    .max(253)
    .regex(/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/)
    .describe(`Name of the ${kind}.`);
}

/**
 * A Kubernetes resource quantity. The pattern is narrower than the API machinery's on purpose: what
 * passes here is always parsable, so that a stored object can never break a list of its kind.
 */
export function quantity(description: string) {
  return z
    .string()
    .min(1)
    .max(32)
    .regex(/^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$/)
    .describe(description);
}

/** metav1.Condition, with `observedGeneration` on each. */
export const condition = z
  .object({
    type: z.string().min(1).max(316).describe("What this condition is about."),
    status: z.enum(["True", "False", "Unknown"]).describe("Whether it holds."),
    observedGeneration: z.int().min(0).describe("The `metadata.generation` this was computed for."),
    lastTransitionTime: z
      .string()
      .max(64)
      .meta({ format: "date-time" })
      .describe("When `status` last changed."),
    reason: z.string().min(1).max(1024).describe("One word for machines: why."),
    message: z.string().max(32_768).describe("One sentence for people: why, and what to do."),
  })
  .describe("One aspect of the object's state.");

export type Condition = z.output<typeof condition>;

export const conditions = z
  .array(condition)
  .max(16)
  .optional()
  .meta({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] })
  .describe("The object's state, one entry per aspect.");

export const observedGeneration = z
  .int()
  .min(-1)
  .optional()
  .describe("The `metadata.generation` this status was computed for; -1 before the first look.");
