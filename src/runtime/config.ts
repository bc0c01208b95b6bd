import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { z } from "zod";
import { AppError } from "./errors.ts";
import { Secret } from "./secret.ts";

/**
 * One zod object per process. A field says its variable and what it is for with
 * `.meta({ env: "DROVER_…", description })`; a secret field is `secretField(env, description)`.
 * Each may also be given as a file by `<VARIABLE>_FILE`.
 */
export type ConfigSchema = z.ZodObject<Record<string, z.ZodType>>;

export interface ConfigMeta {
  env: string;
  description: string;
  secret?: boolean;
}

export function secretField(env: string, description: string) {
  return z
    .string()
    .min(1)
    .transform((value) => new Secret(value))
    .meta({ env, description, secret: true });
}

/** Certificates of authorities, in PEM: what a client trusts instead of the system's. */
export function authoritiesField(env: string, description: string) {
  return z
    .string()
    .refine(areCertificates, "expected certificates in PEM")
    .meta({ env, description });
}

/** Told at start-up, because a TLS connection that is handed anything else fails without a reason. */
function areCertificates(pem: string): boolean {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs) ?? [];
  try {
    const certificates = blocks.map((block) => new X509Certificate(block));
    return certificates.length > 0;
  } catch {
    return false;
  }
}

/** Reads, checks and freezes a configuration; throws CONFIG_INVALID that lists *all* mistakes. */
export function loadConfig<S extends ConfigSchema>(
  schema: S,
  env: Readonly<Record<string, string | undefined>>,
): Readonly<z.output<S>> {
  const raw: Record<string, string> = {};
  const problems: string[] = [];
  const fields: Record<string, z.ZodType> = schema.shape;
  for (const [name, field] of Object.entries(fields)) {
    const meta = configMeta(name, field);
    const value = readVariable(meta, env, problems);
    if (value !== undefined) raw[name] = value;
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const name = String(issue.path[0]);
      const meta = configMeta(name, fields[name]);
      // A file may hold something else than was meant: a key in place of a certificate.
      const direct = env[meta.env] ?? "";
      const shown = meta.secret === true || direct === "" ? "" : ` (is "${direct}")`;
      problems.push(`${meta.env}${shown}: ${issue.message}. ${meta.description}`);
    }
  }
  if (problems.length > 0 || !parsed.success) {
    throw new AppError("CONFIG_INVALID", `bad configuration:\n  ${problems.join("\n  ")}`);
  }
  return Object.freeze(parsed.data);
}

export function configMeta(name: string, field: z.ZodType | undefined): ConfigMeta {
  const meta = outermostMeta(field);
  const env = meta?.["env"];
  if (typeof env !== "string" || typeof meta?.["description"] !== "string") {
    throw new AppError("INTERNAL", `configuration field "${name}" lacks env or description`);
  }
  return { env, description: meta["description"], secret: meta["secret"] === true };
}

/** `.meta()` may stand before or after `.default()` and `.optional()`. */
function outermostMeta(field: z.core.$ZodType | undefined): Record<string, unknown> | undefined {
  const meta = field && z.globalRegistry.get(field);
  if (meta?.["env"] !== undefined) return meta;
  const wraps = field instanceof z.ZodDefault || field instanceof z.ZodOptional;
  return wraps ? outermostMeta(field.unwrap()) : meta;
}

function readVariable(
  meta: ConfigMeta,
  env: Readonly<Record<string, string | undefined>>,
  problems: string[],
): string | undefined {
  const direct = env[meta.env];
  if (direct !== undefined && direct !== "") return direct;
  const file = env[`${meta.env}_FILE`];
  if (file === undefined || file === "") return undefined;
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    problems.push(`${meta.env}_FILE: cannot read "${file}"`);
    return undefined;
  }
}
