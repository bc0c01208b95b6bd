import type { Clock } from "../runtime/clock.ts";
import { codeOf } from "../runtime/errors.ts";
import { type Runnable, runGroup } from "../runtime/group.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Controller } from "./controller.ts";
import { ControllerRunner, LEASE_LOST } from "./controller-runner.ts";
import type { RunningInformer } from "./informer.ts";
import type { LeaderElector } from "./leader-election.ts";
import type { KubeMetrics } from "./metrics.ts";

export interface ManagerDeps {
  clock: Clock;
  rng: Rng;
  logger: Logger;
  metrics: KubeMetrics;
  /** Run on every replica from the start to the very end: health, servers. */
  always?: readonly Runnable[];
  informers: readonly RunningInformer<unknown>[];
  /** Without one, this process leads as soon as its caches are full. */
  elector?: LeaderElector;
  controllers: readonly Controller[];
  /** Run beside the controllers, on the leader only. */
  leaderOnly?: readonly Runnable[];
}

/**
 * Starts what runs always, fills the caches, becomes leader, starts the controllers; stops in the
 * reverse order. Caches are kept full on replicas that do not lead, so that they can take over at
 * once.
 */
export class Manager {
  readonly #deps: ManagerDeps;
  readonly #runners: readonly ControllerRunner[];

  constructor(deps: ManagerDeps) {
    this.#deps = deps;
    this.#runners = deps.controllers.map(
      (controller) => new ControllerRunner({ ...deps, controller }),
    );
  }

  /** For `/readyz`: undefined when every informer has synced. Being leader does not matter. */
  readiness(): string | undefined {
    const problems = this.#deps.informers.flatMap((informer) => informer.readiness() ?? []);
    return problems.length === 0 ? undefined : problems.join("; ");
  }

  /** Runs until the signal aborts; throws when a part fails or the lease is lost. */
  async run(signal: AbortSignal): Promise<void> {
    const { always = [], informers, logger } = this.#deps;
    const caches = informers.map((informer) => ({
      name: `informer ${informer.name}`,
      run: (stop: AbortSignal) => informer.run(stop),
    }));
    const handOver = new AbortController();
    const work = {
      name: "controllers",
      run: async (stop: AbortSignal) => {
        try {
          await this.#work(stop);
        } catch (error) {
          // Another replica leads now, and the log says so: the rest stops in order, no part has failed.
          if (codeOf(error) !== LEASE_LOST) throw error;
          handOver.abort(error);
        }
      },
    };
    const stop = AbortSignal.any([signal, handOver.signal]);
    await runGroup([...always, ...caches, work], stop, logger);
    handOver.signal.throwIfAborted();
  }

  async #work(signal: AbortSignal): Promise<void> {
    const { informers, elector, logger } = this.#deps;
    for (const informer of informers) {
      await informer.synced(signal).catch(() => {}); // rejects on abort only
    }
    if (signal.aborted) return;
    logger.info({ informers: informers.length }, "caches filled");
    if (elector === undefined) await this.#lead(signal);
    else await elector.lead(signal, (leading) => this.#lead(leading));
  }

  /** Controllers stop side by side: each needs its grace, and the lease is not for ever. */
  async #lead(signal: AbortSignal): Promise<void> {
    const { leaderOnly = [], logger } = this.#deps;
    const own = new AbortController();
    const stop = AbortSignal.any([signal, own.signal]);
    const others = runGroup(leaderOnly, stop, logger).finally(() => own.abort());
    const parts = [...this.#runners.map((runner) => runner.run(stop)), others];
    // All of them end before the lease is released, also after one has failed.
    await Promise.allSettled(parts);
    await Promise.all(parts);
  }
}
