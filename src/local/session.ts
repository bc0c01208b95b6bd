import { parseEvent } from "../harness/stored-events.ts";
import { firstEvents } from "../operator/agent-session/first-events.ts";
import { resolveSession, type SessionObjects } from "../operator/agent-session/resolve.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import { AppError } from "../runtime/errors.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Head, SessionRef, SessionStore } from "../sessions/session-log.ts";
import { LOCAL_NAMESPACE } from "./local-objects.ts";
import type { LocalSandboxDriver } from "./sandbox-driver.ts";
import { transcriptLines } from "./transcript-lines.ts";

export interface LocalSessionDeps {
  store: SessionStore;
  driver: LocalSandboxDriver;
  around: SessionObjects;
  print: (line: string) => void;
  rng: Rng;
}

/** One AgentSession of local mode: creates its log once, prints its transcript, says how it ended. */
export class LocalSession {
  readonly ref: SessionRef;
  readonly #deps: LocalSessionDeps;
  readonly #snapshot: SessionSnapshot;

  /** Throws INPUT_INVALID when a reference of the manifest cannot be resolved. */
  constructor(deps: LocalSessionDeps) {
    const resolution = resolveSession(deps.around);
    if (resolution.kind !== "resolved") {
      const why =
        resolution.kind === "unresolved" ? resolution.problem.message : resolution.message;
      throw new AppError(
        "INPUT_INVALID",
        `AgentSession "${deps.around.session.metadata.name}" cannot start: ${why}`,
      );
    }
    this.#deps = deps;
    this.#snapshot = resolution.snapshot;
    this.ref = { tenant: resolution.snapshot.tenant, id: resolution.snapshot.sessionId };
  }

  async isFinished(): Promise<boolean> {
    const found = await this.#deps.store.log.getSession(this.ref);
    return found !== null && exitCodeOf(found.head) !== undefined;
  }

  /** Resolves to the exit code (see `runLocal`), 130 when `stop` aborts first. */
  async play(stop: AbortSignal): Promise<number> {
    const { store, driver, around, print, rng } = this.#deps;
    const { name, namespace = LOCAL_NAMESPACE } = around.session.metadata;
    const title = namespace === LOCAL_NAMESPACE ? name : `${namespace}/${name}`;
    const { created } = await store.log.createSession({
      ...this.ref,
      snapshot: this.#snapshot,
      events: firstEvents(around.session, this.#snapshot, rng),
      source: "manifest",
    });
    print(`${created ? "──" : "── resumed:"} AgentSession ${title} (${this.ref.id})`);
    if (!created) await driver.resume(this.ref, stop);
    const code = await this.#follow(stop);
    if (code === 130) print("stopped; the same command goes on from here");
    return code;
  }

  async #follow(stop: AbortSignal): Promise<number> {
    const { log } = this.#deps.store;
    for await (const item of log.tailEvents(this.ref, { after: null, signal: stop })) {
      if (item.kind !== "event") continue;
      const event = parseEvent(item.event);
      if (event === undefined) continue;
      for (const line of transcriptLines(event)) this.#deps.print(line);
      if (event.type !== "session.status_idle" && event.type !== "session.terminated") continue;
      const found = await log.getSession(this.ref);
      const code = found === null ? undefined : exitCodeOf(found.head);
      // An idle that a later message ended is history.
      if (code !== undefined && found?.head.pos.seq === event.seq) return code;
    }
    return 130;
  }
}

/** How the session ended, as an exit code; undefined while it has work to do. */
function exitCodeOf(head: Head): number | undefined {
  if (head.status === "quarantined") return 3;
  if (head.status === "terminated") return head.why === "stop" ? 0 : 3;
  if (head.status !== "idle") return undefined;
  if (head.why === "end_turn" || head.why === "interrupted") return 0;
  return head.why === "requires_action" ? 5 : 3;
}
