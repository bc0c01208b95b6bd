import type { Rig, Upstream } from "../integration/proxy/rig.ts";
import { everythingOf } from "../integration/proxy/rig.ts";
import { Sweeper } from "./sweeper.ts";

/** Everything that a harness saw and that a proxy has written; what other servers got of a request. */
export class ProxySweep {
  readonly #sweeper: Sweeper;
  readonly #rig: Rig;

  constructor(rig: Rig, markers: readonly string[]) {
    this.#rig = rig;
    this.#sweeper = new Sweeper(markers);
  }

  /** All that can be seen of the answer; it is searched. */
  async answer(response: Response): Promise<string> {
    const bytes = await response.clone().arrayBuffer();
    const seen = await everythingOf(response);
    this.#sweeper.text("answer", seen);
    this.#sweeper.text("answer's body", new Uint8Array(bytes));
    return seen;
  }

  stranger(name: string, { received }: Upstream): void {
    this.#sweeper.json(`what ${name} got`, received);
  }

  /** Places where a marker was found: answers, logs, audit, metrics, strangers. */
  async found(): Promise<string[]> {
    this.#sweeper.text("log", this.#rig.logLines.join(""));
    this.#sweeper.text("audit", this.#rig.auditLines.join("\n"));
    this.#sweeper.text("metrics", await this.#rig.registry.metrics());
    return this.#sweeper.findings.map(({ place, form }) => `${place}: ${form}`);
  }
}
