import { PORTS } from "../../api/names.ts";
import type { EventSink, RecordedEvent } from "../../kube/event-recorder.ts";
import { uidOf } from "../../kube/objects.ts";
import type { NewSessionEvent } from "../../protocol/session-event.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import { hasCode } from "../../runtime/errors.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { OperatorLog, Seq } from "../../sessions/session-log.ts";
import { agentSessions, type Pod } from "../kinds.ts";
import type { OperatorMetrics } from "../metrics.ts";
import type { Trouble } from "./pod-diagnosis.ts";
import type { Sandbox } from "./sandbox-key.ts";

export interface SandboxAnswersDeps {
  log: Pick<OperatorLog, "emitEvents" | "emitWhileIdle" | "bindSandbox" | "unbindSandbox">;
  events: EventSink;
  metrics: Pick<OperatorMetrics, "sandboxLost" | "sandboxProvisionSeconds">;
  clock: Pick<Clock, "now">;
  rng: Rng;
}

/**
 * What the operator tells a session about its sandbox: in its log, as an Event on its object, in
 * metrics. Each fact has one idempotency key, so a pass that is repeated tells it once.
 */
export class SandboxAnswers {
  readonly #deps: SandboxAnswersDeps;

  constructor(deps: SandboxAnswersDeps) {
    this.#deps = deps;
  }

  /** The binding first: an execute token is signed only for a bound sandbox. */
  async provisioned(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    ready: { pod: Pod; ip: string; requestId: string; firstSeen: number },
  ): Promise<void> {
    const { ref, hand, generation } = sandbox;
    const sandboxId = uidOf(ready.pod);
    const { ip } = ready;
    const binding = { sessionId: ref.id, tenant: ref.tenant, hand, generation, ip };
    await this.#deps.log.bindSandbox(sandboxId, binding);
    const address = `${ip.includes(":") ? `[${ip}]` : ip}:${PORTS.sandbox}`;
    const told = await this.#tell(sandbox, ready.requestId, {
      type: "sandbox.provisioned",
      data: { hand, generation, sandboxId, address },
    });
    if (told !== "told") return;
    const seconds = Math.max(0, this.#deps.clock.now() - ready.firstSeen) / 1000;
    this.#deps.metrics.sandboxProvisionSeconds.observe({ hit: "cold" }, seconds);
    this.#record(sandbox, snapshot, {
      type: "Normal",
      reason: "SandboxProvisioned",
      action: "Provision",
      note: `pod ${ready.pod.metadata.name} is ready as ${hand}, generation ${generation}`,
    });
  }

  /** It never came to be. */
  async refused(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    trouble: Trouble,
    requestId: string,
  ): Promise<void> {
    await this.#tellLost(sandbox, snapshot, trouble, requestId);
  }

  /** It was in use. Told before it is unbound, or a crash between the two would keep it untold. */
  async lost(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    trouble: Trouble,
    podUid: string,
  ): Promise<void> {
    await this.#tellLost(sandbox, snapshot, trouble, `lost:${podUid}`);
  }

  /**
   * Idle for long enough, if nothing has moved since the operator looked: false when something has,
   * and then the sandbox stays. Said before it is unbound and goes: a worker that wakes right after
   * reads it and asks for the next generation, and one that wakes before keeps what it works in.
   */
  async released(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    { podUid, at }: { podUid: string; at: Seq },
  ): Promise<boolean> {
    const { hand, generation } = sandbox;
    const event = {
      type: "sandbox.released" as const,
      data: { hand, generation, reason: "idle" },
    };
    const told = await this.#tell(sandbox, `released:${podUid}`, event, at);
    if (told === "more") return false;
    await this.unbind(podUid);
    if (told === "told") {
      this.#record(sandbox, snapshot, {
        type: "Normal",
        reason: "SandboxReleased",
        action: "Release",
        note: `the session is idle: ${hand}, generation ${generation}, is deleted`,
      });
    }
    return true;
  }

  async unbind(podUid: string): Promise<void> {
    await this.#deps.log.unbindSandbox(podUid);
  }

  async #tellLost(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    { reason, message }: Trouble,
    idempotencyKey: string,
  ): Promise<void> {
    const { hand, generation } = sandbox;
    const told = await this.#tell(sandbox, idempotencyKey, {
      type: "sandbox.lost",
      data: { hand, generation, reason, message: cut(message) },
    });
    if (told !== "told") return;
    this.#deps.metrics.sandboxLost.inc({ reason });
    this.#record(sandbox, snapshot, {
      type: "Warning",
      reason: "SandboxLost",
      action: "Provision",
      note: `${reason}: ${message}`,
    });
  }

  /** `known` when it had been told before, or the session has ended; `more` only where `idleAt` is given. */
  async #tell(
    { ref }: Sandbox,
    idempotencyKey: string,
    event: Omit<Extract<NewSessionEvent, { type: `sandbox.${string}` }>, "id">,
    idleAt?: Seq,
  ): Promise<"told" | "known" | "more"> {
    const { log, rng } = this.#deps;
    const events = [{ ...event, id: rng.id("sevt") }];
    try {
      const result =
        idleAt === undefined
          ? await log.emitEvents(ref, events, { idempotencyKey })
          : await log.emitWhileIdle(ref, events, { idempotencyKey, at: idleAt });
      if (result === "more") return "more";
      return result.duplicate ? "known" : "told";
    } catch (error) {
      // Nobody is left to hear it.
      if (hasCode(error, "SESSION_CLOSED") || hasCode(error, "SESSION_NOT_FOUND")) return "known";
      throw error;
    }
  }

  #record({ ref }: Sandbox, snapshot: SessionSnapshot | null, event: RecordedEvent): void {
    const object = snapshot?.object;
    if (object === undefined) return;
    const metadata = { ...object, namespace: ref.tenant };
    this.#deps.events.record(agentSessions, { metadata }, event);
  }
}

/** A set-up script's last words may be long; the model needs the end of them least of all in full. */
const MAX_MESSAGE_CHARS = 4_000;

function cut(message: string): string {
  return message.length <= MAX_MESSAGE_CHARS ? message : `${message.slice(0, MAX_MESSAGE_CHARS)}…`;
}
