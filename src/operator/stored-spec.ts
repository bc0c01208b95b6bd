import type { z } from "zod";
import type { KubeObject } from "../kube/objects.ts";

/**
 * A stored object may have been accepted by an older, looser CRD. So a spec is parsed before it is
 * used, and what does not fit stalls the users of that object only, by name and field.
 */
export type StoredSpec<T> = { ok: true; spec: T } | { ok: false; problem: string };

export function parseStoredSpec<T>(
  object: KubeObject & { spec?: unknown },
  schema: z.ZodType<T>,
): StoredSpec<T> {
  const parsed = schema.safeParse(object.spec ?? {});
  if (parsed.success) return { ok: true, spec: parsed.data };
  const fields = parsed.error.issues
    .slice(0, 3)
    .map((issue) => `${["spec", ...issue.path].join(".")}: ${issue.message}`);
  const { name, namespace } = object.metadata;
  return {
    ok: false,
    problem: `${object.kind} "${name}" in namespace "${namespace}" is stored with a field that is not accepted (${fields.join("; ")}); correct it with kubectl apply`,
  };
}
