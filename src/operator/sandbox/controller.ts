import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
} from "../../kube/controller.ts";
import { isAlreadyExists, unlessNotFound } from "../../kube/errors.ts";
import type { Informer } from "../../kube/informer.ts";
import { isBeingDeleted, uidOf } from "../../kube/objects.ts";
import { type Outcome, settled, settledFor, waiting } from "../../kube/outcome.ts";
import { controllerOf, ForeignObjectError } from "../../kube/ownership.ts";
import type { BindingReader } from "../../protocol/session-ports.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Jwks } from "../../protocol/tokens.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { OperatorLog, Seq } from "../../sessions/session-log.ts";
import { type AgentSession, agentSessions, type Pod, pods } from "../kinds.ts";
import type { SandboxWaits } from "../sandbox-waits.ts";
import type { SandboxAnswers } from "./answers.ts";
import { admissionTrouble, refusalOf } from "./create-refusal.ts";
import { type Observed, type Plan, planSandbox } from "./plan.ts";
import { buildSandboxPod } from "./pod.ts";
import type { Trouble } from "./pod-diagnosis.ts";
import type { PodMemory } from "./pod-memory.ts";
import type { OpenRequests, RequestFeed } from "./request-feed.ts";
import { keyOfPod, type Sandbox, sandboxOf } from "./sandbox-key.ts";

export interface SandboxControllerDeps {
  client: Pick<KubeClient, "get" | "create" | "delete">;
  log: Pick<OperatorLog, "statusOf" | "snapshotOf">;
  requests: RequestFeed;
  bindings: BindingReader;
  answers: SandboxAnswers;
  memory: PodMemory;
  waits: Pick<SandboxWaits, "waiting" | "over">;
  /** Sandbox pods, with `podIndexes`. */
  pods: Informer<Pod>;
  sessions: Informer<AgentSession>;
  /** True once the namespace has its policies and service account. */
  isolated(namespace: string): boolean;
  publicKeys(): Jwks;
  userNamespaces: boolean;
  clock: Pick<Clock, "now">;
}

/** Room may come when another pod of the namespace ends. */
const QUOTA_RETRY_MS = 2_000;
const AGAIN_MS = 1_000;
/** For a pod whose session's snapshot is gone: it is discarded whatever these say. */
const NO_LIMITS = { startDeadlineMs: 0, idleTimeoutMs: 0 };

/**
 * Sandboxes: one pod per request, made once, bound when ready; lost and idle ones are announced and
 * removed. Nothing here is needed for a session that runs: it only makes and takes away hands.
 */
export class SandboxController implements Controller {
  readonly name = "sandbox";
  readonly concurrency = 16;
  readonly watches: readonly Watch[];
  readonly #deps: SandboxControllerDeps;
  readonly #hindrances = new Map<string, Trouble>();

  constructor(deps: SandboxControllerDeps) {
    this.#deps = deps;
    const keysOf = (pod: Pod): string[] => {
      const key = keyOfPod(pod);
      return key === undefined ? [] : [key];
    };
    this.watches = [
      // First, so that a pass finds what the change it was woken by left behind.
      deps.memory.watch,
      deps.requests.watch,
      watchMapped(deps.pods, keysOf),
      watchMapped(deps.sessions, (session) =>
        deps.pods.byIndex("session", session.metadata.uid ?? "").flatMap(keysOf),
      ),
    ];
  }

  async reconcile(key: string, context: PassContext): Promise<Outcome> {
    const sandbox = sandboxOf(key);
    const { requests, memory } = this.#deps;
    const open = requests.open(key);
    const { provision, release } = open;
    const found = memory.podOf(key);
    const vanished = memory.vanishedOf(key);
    if (!provision && !release && found === undefined && vanished === undefined) return settled;
    const snapshot = await this.#deps.log.snapshotOf(sandbox.ref);
    // Labels can be copied: a stranger's pod is neither used nor deleted.
    const pod = found !== undefined && isStranger(found, snapshot) ? undefined : found;
    const observed: Observed = {
      now: this.#deps.clock.now(),
      provision: provision && {
        requestId: provision.request.requestId,
        firstSeen: provision.firstSeen,
      },
      release: release && { requestId: release.request.requestId },
      pod,
      vanished,
      bound: await this.#isBound(pod ?? vanished, open),
      hindrance: this.#hindrances.get(key),
      sessionPresent: await this.#sessionPresent(sandbox, snapshot, context.signal),
      isolated: this.#deps.isolated(sandbox.ref.tenant),
      limits: limitsOf(snapshot),
      log: (await this.#deps.log.statusOf([sandbox.ref]))[0] ?? null,
    };
    const plan = planSandbox(observed);
    if (changesSomething(plan, observed)) {
      context.logger.info({ sessionId: sandbox.ref.id, plan: plan.kind }, "sandbox changes");
    }
    return this.#apply({ key, sandbox, open, plan, observed, snapshot, context });
  }

  async #apply(pass: Pass): Promise<Outcome> {
    const { key, sandbox, open, plan, observed, snapshot } = pass;
    const { answers, requests } = this.#deps;
    const pod = observed.pod ?? observed.vanished;
    if (plan.kind !== "wait" && plan.kind !== "create") this.#deps.waits.over(sandbox);
    switch (plan.kind) {
      case "nothing":
        return plan.recheckAfterMs === undefined ? settled : settledFor(plan.recheckAfterMs);
      case "wait":
        this.#waits(pass, plan.trouble);
        return waiting("Progressing", plan.retryAfterMs, plan.trouble.message);
      case "create":
        return this.#create(pass);
      case "bind":
        if (pod === undefined || observed.provision === undefined) return settled;
        await answers.provisioned(sandbox, snapshot, { pod, ip: plan.ip, ...observed.provision });
        await requests.answered(key, open);
        this.#hindrances.delete(key);
        return settledFor(Math.max(observed.limits.idleTimeoutMs, 1_000));
      case "refuse":
        await answers.refused(sandbox, snapshot, plan.trouble, observed.provision?.requestId ?? "");
        await this.#remove(key, observed.pod, pass.context.signal);
        await requests.answered(key, open);
        return settled;
      case "lose":
        if (pod === undefined) return settled;
        await answers.lost(sandbox, snapshot, plan.trouble, uidOf(pod));
        await this.#remove(key, observed.pod, pass.context.signal);
        // Last: a pod that is not bound is taken for one whose end has been told.
        await answers.unbind(uidOf(pod));
        return settled;
      case "release":
        return this.#release(pass, plan.at);
      case "discard":
        if (pod !== undefined) await answers.unbind(uidOf(pod));
        await this.#remove(key, observed.pod, pass.context.signal);
        await requests.answered(key, open);
        return settled;
    }
  }

  async #release({ key, sandbox, observed, snapshot, context }: Pass, at: Seq): Promise<Outcome> {
    const { pod } = observed;
    if (pod === undefined) return settled;
    const idle = { podUid: uidOf(pod), at };
    const released = await this.#deps.answers.released(sandbox, snapshot, idle);
    // Something has moved since: what that makes of the pod is for another look.
    if (!released) return settledFor(AGAIN_MS);
    await this.#remove(key, pod, context.signal);
    return settled;
  }

  async #create(pass: Pass): Promise<Outcome> {
    const { key, sandbox, open, snapshot, observed, context } = pass;
    const { object, template } = snapshot ?? {};
    if (object === undefined || template === undefined || observed.provision === undefined) {
      // Only a session with an object and a template can ask; another request is a bug of the harness.
      const trouble: Trouble = {
        reason: "PodRefused",
        message:
          "the session has no sandbox template; set spec.sandboxTemplateRef in a new session",
      };
      this.#hindrances.set(key, trouble);
      await this.#deps.answers.refused(
        sandbox,
        snapshot,
        trouble,
        observed.provision?.requestId ?? "",
      );
      await this.#deps.requests.answered(key, open);
      return settled;
    }
    const wanted = buildSandboxPod(
      {
        tenant: sandbox.ref.tenant,
        sessionId: sandbox.ref.id,
        hand: sandbox.hand,
        generation: sandbox.generation,
        requestId: observed.provision.requestId,
      },
      object,
      template,
      { publicKeys: this.#deps.publicKeys(), userNamespaces: this.#deps.userNamespaces },
    );
    try {
      this.#deps.memory.made(key, await this.#createOrTake(wanted, context.signal));
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal === undefined) {
        const trouble = admissionTrouble(error);
        if (trouble !== undefined) this.#hinder(pass, trouble);
        throw error;
      }
      if (refusal.kind === "namespace-gone") {
        await this.#deps.requests.answered(key, open);
        return settled;
      }
      if (refusal.kind === "later") {
        this.#hinder(pass, refusal.trouble);
        return waiting(refusal.trouble.reason, QUOTA_RETRY_MS, refusal.trouble.message);
      }
      return this.#apply({ ...pass, plan: { kind: "refuse", trouble: refusal.trouble } });
    }
    this.#waits(pass, { reason: "StartDeadlineExceeded", message: "its pod is made" });
    return waiting("Progressing", observed.limits.startDeadlineMs, "the pod is made");
  }

  /** Kept for the answer when the deadline passes, and shown meanwhile. */
  #hinder(pass: Pass, trouble: Trouble): void {
    this.#hindrances.set(pass.key, trouble);
    this.#waits(pass, trouble);
  }

  #waits({ sandbox, snapshot }: Pass, trouble: Trouble): void {
    const object = snapshot?.object?.name;
    if (object !== undefined) this.#deps.waits.waiting(sandbox, object, trouble);
  }

  /**
   * A create whose answer is lost may have happened: the name is deterministic, so the next try
   * meets the pod by name and takes it, if it is ours.
   */
  async #createOrTake(wanted: Pod, signal: AbortSignal): Promise<Pod> {
    const { client } = this.#deps;
    try {
      return await client.create(pods, wanted, { signal });
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const existing = await client.get(pods, wanted.metadata, { signal });
      const [owner] = wanted.metadata.ownerReferences ?? [];
      if (controllerOf(existing)?.uid === owner?.uid && keyOfPod(existing) === keyOfPod(wanted)) {
        return existing;
      }
      throw owner === undefined ? error : new ForeignObjectError(pods, existing, { owner });
    }
  }

  async #remove(key: string, pod: Pod | undefined, signal: AbortSignal): Promise<void> {
    const { client, memory } = this.#deps;
    this.#hindrances.delete(key);
    memory.forget(key);
    if (pod === undefined || isBeingDeleted(pod)) return;
    const uid = uidOf(pod);
    await unlessNotFound(
      client.delete(pods, pod.metadata, { uid, propagation: "Background", signal }),
    );
  }

  /** Of no matter while the session still asks for it, or has given it back. */
  async #isBound(pod: Pod | undefined, { provision, release }: OpenRequests): Promise<boolean> {
    if (pod === undefined || provision !== undefined || release !== undefined) return false;
    return (await this.#deps.bindings.readBinding(uidOf(pod))) !== null;
  }

  /** The cache may be behind: what it lacks is asked for before a pod is taken away. */
  async #sessionPresent(
    sandbox: Sandbox,
    snapshot: SessionSnapshot | null,
    signal: AbortSignal,
  ): Promise<boolean> {
    const object = snapshot?.object;
    if (object === undefined) return false;
    const ref = { namespace: sandbox.ref.tenant, name: object.name };
    const cached = this.#deps.sessions.get(`${ref.namespace}/${ref.name}`);
    if (cached?.metadata.uid === object.uid) return !isBeingDeleted(cached);
    const found = await unlessNotFound(this.#deps.client.get(agentSessions, ref, { signal }));
    return found?.metadata.uid === object.uid && !isBeingDeleted(found);
  }
}

/** Not owned by the session it says it belongs to; for a session that is gone nobody can tell. */
function isStranger(pod: Pod, snapshot: SessionSnapshot | null): boolean {
  const object = snapshot?.object;
  return object !== undefined && controllerOf(pod)?.uid !== object.uid;
}

/** For the log: neither another look at a pod that already goes nor another try is a change. */
function changesSomething(plan: Plan, { pod, hindrance }: Observed): boolean {
  if (plan.kind === "create") return hindrance === undefined;
  if (plan.kind === "discard") return pod !== undefined && !isBeingDeleted(pod);
  return plan.kind !== "nothing" && plan.kind !== "wait";
}

interface Pass {
  key: string;
  sandbox: Sandbox;
  /** As they were when the pass looked: the answers are to these and no later ones. */
  open: OpenRequests;
  plan: Plan;
  observed: Observed;
  snapshot: SessionSnapshot | null;
  context: PassContext;
}

function limitsOf(snapshot: SessionSnapshot | null) {
  const template = snapshot?.template;
  if (template === undefined) return NO_LIMITS;
  return {
    startDeadlineMs: template.startDeadlineSeconds * 1000,
    idleTimeoutMs: template.idleTimeoutSeconds * 1000,
  };
}
