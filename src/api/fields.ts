import { z } from "zod";

/** A CEL rule as Kubernetes knows it; `message` says "must …" and names fields in back-quotes. */
export interface ValidationRule {
  rule: string;
  message: string;
}

/** For `.meta()`: rules that the API server and local mode check. */
export function rules(...list: ValidationRule[]) {
  return { "x-kubernetes-validations": list };
}

/** For `.meta()`: a list whose items are told apart by a field, so that none can appear twice. */
export function keyedBy(field: string) {
  return { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [field] };
}

/** The transition rule of an optional field of an object: it stays absent, or stays what it is. */
export function immutable(field: string, kind: string): ValidationRule {
  return {
    rule: `has(self.${field}) == has(oldSelf.${field}) && (!has(self.${field}) || self.${field} == oldSelf.${field})`,
    message: `\`${field}\` must not be changed; create a new ${kind}`,
  };
}

/**
 * Text of one form. The form is a CEL rule rather than a `pattern`, because the API server answers a
 * bad pattern with the regular expression and a bad rule with the message. `pattern` must mean the
 * same to JavaScript and RE2.
 */
export function formatted(maxLength: number, pattern: string, message: string) {
  const expression = new RegExp(pattern);
  return z
    .string()
    .max(maxLength)
    .refine((value) => expression.test(value), message)
    .meta(rules({ rule: `self.matches(${JSON.stringify(pattern)})`, message }));
}

/** The name of another Kubernetes object. */
export function objectName(kind: string) {
  return formatted(
    253,
    "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    "must be the name of an object: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
  ).describe(`Name of the ${kind}.`);
}

/** A short name inside an object. */
export function entryName(description: string) {
  return formatted(
    63,
    "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
    "must consist of lower-case letters, digits and `-`, and begin and end with a letter or digit",
  ).describe(description);
}

export function httpUrl() {
  return formatted(
    2048,
    "^https?://[A-Za-z0-9\\[][^\\s@]*$",
    "must be a URL that begins with https:// or http:// and holds neither white space nor `@`",
  );
}

/** Path of an entry below the folder of its own vault; so no entry can name another's. */
export function vaultPath() {
  return formatted(
    512,
    "^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
    "must be a relative path such as `github` or `teams/docs`: letters, digits, `-`, `_`, `.` and single `/`, no part beginning with `.`",
  );
}

/** Key inside a Secret of a vault. */
export function vaultKey() {
  return formatted(
    253,
    "^[-._A-Za-z0-9]+$",
    "must be a key of the secret: letters, digits, `-`, `_` and `.`",
  ).describe("Key inside the secret.");
}

/** A git repository by its https URL, with host, at least one folder and a name; `.git` may end it. */
export function repositoryUrl() {
  return formatted(
    1024,
    "^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*){2,10}$",
    "must be the URL of a git repository such as `https://git.example/team/app`: no user, no query, no `..`",
  );
}

/** Key inside a Secret. */
export function secretKey() {
  return formatted(
    253,
    "^[-._A-Za-z0-9]+$",
    "must be a key of a Secret: letters, digits, `-`, `_` and `.`",
  ).describe("Key inside the Secret.");
}

/** A container image reference. */
export function imageName() {
  return formatted(
    512,
    "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$",
    "must be a container image such as `drover-sandbox:0.1.0` or `registry.example/team/image@sha256:…`",
  );
}

/**
 * Resource quantities. The forms are narrower than the API machinery's on purpose: what passes here
 * is always parsable, so that a stored object can never break a list of its kind, and never zero,
 * which a kubelet reads as "no limit".
 */
export function cpuQuantity(description: string) {
  return formatted(
    16,
    "^([1-9][0-9]{0,6}m|[1-9][0-9]{0,3}([.][0-9]{1,3})?|0[.][0-9]{1,3})$",
    "must be a number of CPUs such as `500m`, `0.5` or `2`",
  ).describe(description);
}

export function byteQuantity(description: string) {
  return formatted(
    16,
    "^[1-9][0-9]{0,6}([.][0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)$",
    "must be a quantity of bytes with its unit, such as `512Mi` or `1Gi`",
  ).describe(description);
}

const timestamp = (description: string) =>
  z.string().max(64).meta({ format: "date-time" }).describe(description);

/** RFC 3339, optional: absent until the moment has come. */
export function optionalTime(description: string) {
  return timestamp(description).optional();
}

/** metav1.Condition, with `observedGeneration` on each. */
const condition = z
  .object({
    type: z.string().min(1).max(316).describe("What this condition is about."),
    status: z.enum(["True", "False", "Unknown"]).describe("Whether it holds."),
    observedGeneration: z.int().min(0).describe("The `metadata.generation` this was computed for."),
    lastTransitionTime: timestamp("When `status` last changed."),
    reason: z.string().min(1).max(1024).describe("One word for machines: why."),
    message: z.string().max(32_768).describe("One sentence for people: why, and what to do."),
  })
  .describe("One aspect of the object's state.");

export type Condition = z.output<typeof condition>;

export const conditions = z
  .array(condition)
  .max(16)
  .optional()
  .meta(keyedBy("type"))
  .describe("The object's state, one entry per aspect.");

export const observedGeneration = z
  .int()
  .min(-1)
  .optional()
  .describe("The `metadata.generation` this status was computed for; -1 before the first look.");
