import { harnessPoolSpec } from "../../api/harness-pool.ts";
import { FIELD_MANAGERS, LABELS } from "../../api/names.ts";
import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
  watchObjects,
  watchOwned,
} from "../../kube/controller.ts";
import type { Informer } from "../../kube/informer.ts";
import { isBeingDeleted, keyOf, refOf, uidOf } from "../../kube/objects.ts";
import { type Outcome, settled, settledFor, stalled, waiting } from "../../kube/outcome.ts";
import { applyOwned, ownerReferenceTo } from "../../kube/ownership.ts";
import { serviceAccounts } from "../../kube/resources.ts";
import { writeStatus } from "../../kube/status.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { CommitMode, OperatorLog, PoolKey } from "../../sessions/session-log.ts";
import { writeConditions } from "../accepted-spec.ts";
import { notWithoutHelp } from "../conditions.ts";
import type { InstallSettings } from "../install-settings.ts";
import {
  type Deployment,
  deployments,
  type HarnessPool,
  harnessPools,
  type Pod,
  podDisruptionBudgets,
} from "../kinds.ts";
import { labelValue, poolDeployment } from "../names.ts";
import { parseStoredSpec } from "../stored-spec.ts";
import { type Observed, planStatus, storeProblemOf } from "./plan.ts";
import { buildDeployment, buildPodDisruptionBudget, buildServiceAccount } from "./resources.ts";

export interface HarnessPoolControllerDeps {
  client: Pick<KubeClient, "get" | "apply" | "patchStatus">;
  pools: Informer<HarnessPool>;
  /** Those of the install namespace. */
  deployments: Informer<Deployment>;
  /** Harness pods, with the index `pool` (value of the label). */
  pods: Informer<Pod>;
  log: Pick<OperatorLog, "registerPool" | "watchPools">;
  commit: CommitMode;
  install: InstallSettings;
  clock: Pick<Clock, "now">;
}

const STORE_RETRY_MS = 5_000;
/** A store that became unfit, or a code that got lost with it, shows after this. */
const STORE_RECHECK_MS = 60_000;

/**
 * HarnessPool: its code in the session store, then Deployment, ServiceAccount and
 * PodDisruptionBudget, owned by the pool. `spec.replicas` is what `/scale` sets.
 */
export class HarnessPoolController implements Controller {
  readonly name = "harness-pool";
  readonly concurrency = 1;
  readonly watches: readonly Watch[];
  readonly #deps: HarnessPoolControllerDeps;
  readonly #registered = new Map<string, PoolKey>();

  constructor(deps: HarnessPoolControllerDeps) {
    this.#deps = deps;
    this.watches = [
      watchObjects(deps.pools),
      watchOwned(deps.deployments, harnessPools),
      watchMapped(deps.pods, (pod) => {
        const pool = deps.pools.list().find(({ metadata }) => belongs(pod, metadata.name));
        return pool === undefined ? [] : [keyOf(pool.metadata)];
      }),
    ];
  }

  async reconcile(key: string, { signal }: PassContext): Promise<Outcome> {
    const { pools, install } = this.#deps;
    const pool = pools.get(key);
    if (pool === undefined || isBeingDeleted(pool)) {
      if (this.#registered.delete(key)) this.#watchPools();
      return settled;
    }
    const invalid = this.#invalid(pool);
    if (invalid !== undefined) {
      const write = { ...this.#deps, type: harnessPools };
      await writeConditions(write, pool, notWithoutHelp("InvalidSpec", invalid));
      return stalled("InvalidSpec", invalid);
    }
    const spec = harnessPoolSpec.parse(pool.spec);
    const { code, problem } = await this.#register(key, pool);
    if (code !== undefined) {
      const identity = { name: pool.metadata.name, code };
      await this.#applyChildren(pool, buildDeployment(identity, spec, install), signal);
    }
    const { name } = pool.metadata;
    const observed: Observed = {
      pool,
      now: this.#deps.clock.now(),
      storeProblem: problem,
      code,
      vault: install.vault,
      deployment: this.#deps.deployments.get(`${install.namespace}/${poolDeployment(name)}`),
      pods: this.#deps.pods.list().filter((pod) => belongs(pod, name)),
    };
    await writeStatus(this.#deps.client, harnessPools, pool, planStatus(observed));
    if (problem !== undefined) return waiting(problem.reason, STORE_RETRY_MS, problem.message);
    return settledFor(STORE_RECHECK_MS);
  }

  #invalid(pool: HarnessPool): string | undefined {
    const { install } = this.#deps;
    const { namespace, name } = pool.metadata;
    if (namespace !== install.namespace) {
      return `harness pool "${name}" is in namespace "${namespace}"; pools work only in namespace "${install.namespace}", where Drover is installed: create it there and delete this one`;
    }
    const parsed = parseStoredSpec(pool, harnessPoolSpec);
    if (!parsed.ok) return parsed.problem;
    if (parsed.spec.model.apiKeyVaultRef !== undefined && install.vault === undefined) {
      return "`spec.model.apiKeyVaultRef` names a secret of a vault, and this installation has none: set vault.address of the chart, or use `apiKeySecret`";
    }
    return undefined;
  }

  /** The code that was found before stays valid while the store is down: its pods can go on. */
  async #register(
    key: string,
    pool: HarnessPool,
  ): Promise<{ code: string | undefined; problem?: Observed["storeProblem"] }> {
    const { log, commit } = this.#deps;
    const { name } = refOf(key);
    const { partitions } = pool.spec;
    try {
      const config = await log.registerPool({ uid: uidOf(pool), name, partitions, commit });
      this.#registered.set(key, { code: config.code, partitions: config.partitions });
      this.#watchPools();
      return { code: config.code };
    } catch (error) {
      return { code: pool.status?.code, problem: storeProblemOf(error) };
    }
  }

  #watchPools(): void {
    this.#deps.log.watchPools([...this.#registered.values()]);
  }

  async #applyChildren(
    pool: HarnessPool,
    deployment: Deployment,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, install } = this.#deps;
    const { name } = pool.metadata;
    const claim = { owner: ownerReferenceTo(harnessPools, pool) };
    const options = { fieldManager: FIELD_MANAGERS.children, force: true, signal };
    const account = buildServiceAccount(name, install.namespace);
    await applyOwned(client, serviceAccounts, account, claim, options);
    await applyOwned(client, deployments, deployment, claim, options);
    const budget = buildPodDisruptionBudget(name, install.namespace);
    await applyOwned(client, podDisruptionBudgets, budget, claim, options);
  }
}

function belongs(pod: Pod, pool: string): boolean {
  return pod.metadata.labels?.[LABELS.pool] === labelValue(pool);
}
