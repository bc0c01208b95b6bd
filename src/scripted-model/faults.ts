import type { Fault, Script } from "./script.ts";

/**
 * Faults by call count, the only thing this server remembers. `call: n` is the n-th request of the
 * scenario after the fault was planned (after the start, for faults of the script).
 */
export class FaultPlan {
  readonly #calls = new Map<string, number>();
  #planned: { scenario: string; first: number; fault: Fault }[] = [];

  constructor(script: Script) {
    for (const [name, { faults }] of script) this.plan(name, faults);
  }

  plan(scenario: string, faults: readonly Fault[]): void {
    const base = this.#calls.get(scenario) ?? 0;
    for (const fault of faults) {
      this.#planned.push({ scenario, first: base + fault.call, fault });
    }
  }

  clear(): void {
    this.#planned = [];
  }

  /** Counts one request and returns its number and the fault that hits it, if any. */
  next(scenario: string): { call: number; fault: Fault | undefined } {
    const call = (this.#calls.get(scenario) ?? 0) + 1;
    this.#calls.set(scenario, call);
    const hit = this.#planned.find(
      (entry) =>
        entry.scenario === scenario &&
        call >= entry.first &&
        call < entry.first + entry.fault.times,
    );
    return { call, fault: hit?.fault };
  }
}
