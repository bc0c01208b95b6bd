import { Waker } from "../kube/controller.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Trouble } from "./sandbox/pod-diagnosis.ts";
import { type Sandbox, sandboxKey } from "./sandbox/sandbox-key.ts";

/** What keeps a session from its sandbox. */
export interface SandboxWait extends Trouble {
  /** Epoch ms at which this process first saw this reason. */
  since: number;
}

/** Of the sandbox, whose session it is and what it waits for. */
interface Entry {
  sessionId: string;
  session: string;
  wait: SandboxWait;
}

/**
 * What sessions wait for, from the controller that makes sandboxes to the one that writes the status
 * of sessions, which is woken by each change. Kept in memory: after a restart it is found again.
 */
export class SandboxWaits {
  readonly #clock: Pick<Clock, "now">;
  readonly #entries = new Map<string, Entry>();
  readonly #waker = new Waker();
  readonly watch = this.#waker.watch;

  constructor({ clock }: { clock: Pick<Clock, "now"> }) {
    this.#clock = clock;
  }

  /** `object`: name of the AgentSession. */
  waiting(sandbox: Sandbox, object: string, { reason, message }: Trouble): void {
    const key = sandboxKey(sandbox);
    const before = this.#entries.get(key)?.wait;
    if (before?.reason === reason && before.message === message) return;
    const since = before?.reason === reason ? before.since : this.#clock.now();
    const session = `${sandbox.ref.tenant}/${object}`;
    this.#entries.set(key, {
      sessionId: sandbox.ref.id,
      session,
      wait: { reason, message, since },
    });
    this.#waker.add(session);
  }

  /** It is ready, refused or not wanted any more. */
  over(sandbox: Sandbox): void {
    const key = sandboxKey(sandbox);
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#waker.add(entry.session);
  }

  /** The longest of the session's waits. */
  of(sessionId: string): SandboxWait | undefined {
    const found = [...this.#entries.values()].filter((entry) => entry.sessionId === sessionId);
    return found.map(({ wait }) => wait).toSorted((a, b) => a.since - b.since)[0];
  }
}
