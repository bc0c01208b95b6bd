import type { z } from "zod";
import type { KubeClient } from "../kube/client.ts";
import { type Controller, type Watch, watchObjects } from "../kube/controller.ts";
import type { Informer } from "../kube/informer.ts";
import { isBeingDeleted, type KubeObject, type ResourceType } from "../kube/objects.ts";
import { type Outcome, settled, stalled } from "../kube/outcome.ts";
import { mergeConditions, writeStatus } from "../kube/status.ts";
import type { Clock } from "../runtime/clock.ts";
import { notWithoutHelp, readyNow, type Wanted } from "./conditions.ts";
import type { ConditionsStatus } from "./kinds.ts";
import { parseStoredSpec } from "./stored-spec.ts";

export interface WithConditions extends KubeObject {
  spec: object;
  status?: ConditionsStatus;
}

export interface AcceptedSpecDeps<T extends WithConditions> {
  name: string;
  type: ResourceType<T>;
  schema: z.ZodType;
  objects: Informer<T>;
  client: Pick<KubeClient, "patchStatus">;
  clock: Pick<Clock, "now">;
}

/**
 * A kind that only describes something: its status says whether it can be used, once per generation.
 * The CRD refuses what does not fit; this speaks of what an older CRD had let in.
 */
export class AcceptedSpecController<T extends WithConditions> implements Controller {
  readonly name: string;
  readonly watches: readonly Watch[];
  readonly #deps: AcceptedSpecDeps<T>;

  constructor(deps: AcceptedSpecDeps<T>) {
    this.#deps = deps;
    this.name = deps.name;
    this.watches = [watchObjects(deps.objects)];
  }

  async reconcile(key: string): Promise<Outcome> {
    const { objects, schema } = this.#deps;
    const object = objects.get(key);
    if (object === undefined || isBeingDeleted(object)) return settled;
    const parsed = parseStoredSpec(object, schema);
    if (parsed.ok) {
      await writeConditions(this.#deps, object, readyNow("Accepted"));
      return settled;
    }
    await writeConditions(this.#deps, object, notWithoutHelp("InvalidSpec", parsed.problem));
    return stalled("InvalidSpec", parsed.problem);
  }
}

/** Writes `conditions`, `observedGeneration` and what `more` holds, when they differ from what is there. */
export async function writeConditions<T extends WithConditions>(
  deps: Pick<AcceptedSpecDeps<T>, "client" | "clock" | "type">,
  object: T,
  wanted: Wanted[],
  more: Partial<T["status"]> = {},
): Promise<boolean> {
  const { generation } = object.metadata;
  const nowMs = deps.clock.now();
  const conditions = mergeConditions(object.status?.conditions, wanted, { generation, nowMs });
  const next = { ...object.status, ...more, observedGeneration: generation, conditions };
  return writeStatus(deps.client, deps.type, object, next);
}
