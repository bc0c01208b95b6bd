import { z } from "zod";
import type { KubeClient } from "../../kube/client.ts";
import { uidOf } from "../../kube/objects.ts";
import { configMaps } from "../../kube/resources.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { OperatorLog, SessionRef } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";

/** The ConfigMap the chart ships empty; the operator may read and patch this one name, and make none. */
export const LOGS_TO_ERASE = "drover-logs-to-erase";

export interface ErasuresDeps {
  client: Pick<KubeClient, "get" | "patch">;
  log: Pick<OperatorLog, "snapshotOf" | "deleteSession">;
  /** Namespace of the install. */
  namespace: string;
  clock: Clock;
  logger: Logger;
}

interface Erasure {
  ref: SessionRef;
  /** Of the AgentSession: what was made for another object is not erased. */
  uid: string;
}

const record = z.object({ tenant: z.string(), uid: z.string() });
const RETRY_MS = 10_000;

/**
 * Logs whose AgentSession was let go before they could be erased. Each is written down, by its id,
 * in a ConfigMap of the install namespace *before* the finalizer goes, and struck off once the log
 * is erased; so the work is finished when Redis is back, also by another operator process. The
 * leader alone reads and writes the list.
 */
export class Erasures {
  readonly #deps: ErasuresDeps;
  readonly #open = new Map<string, Erasure>();
  #isRead = false;

  constructor(deps: ErasuresDeps) {
    this.#deps = deps;
  }

  /** Rejects when it could not be written down. */
  async note(session: AgentSession, ref: SessionRef): Promise<void> {
    const uid = uidOf(session);
    await this.#patch(ref.id, JSON.stringify({ tenant: ref.tenant, uid }));
    this.#open.set(ref.id, { ref, uid });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    while (!signal.aborted) {
      try {
        if (!this.#isRead) await this.#readNoted();
        for (const erasure of this.#open.values()) await this.#erase(erasure);
      } catch (error) {
        // Redis is still down, or the API server does not answer.
        logger.debug({ err: describeError(error) }, "logs left over are not erased yet");
      }
      await clock.sleep(RETRY_MS, signal).catch(() => {});
    }
  }

  async #readNoted(): Promise<void> {
    const { client, namespace } = this.#deps;
    const { data = {} } = await client.get(configMaps, { namespace, name: LOGS_TO_ERASE });
    for (const [id, text] of Object.entries(data)) {
      const { tenant, uid } = record.parse(JSON.parse(text));
      this.#open.set(id, { ref: { tenant, id }, uid });
    }
    this.#isRead = true;
  }

  async #erase({ ref, uid }: Erasure): Promise<void> {
    const { log, logger } = this.#deps;
    const snapshot = await log.snapshotOf(ref);
    if (snapshot === null || snapshot.object?.uid === uid) await log.deleteSession(ref);
    await this.#patch(ref.id, null);
    this.#open.delete(ref.id);
    logger.info({ sessionId: ref.id }, "a log that was left over is erased");
  }

  async #patch(id: string, value: string | null): Promise<void> {
    const { client, namespace } = this.#deps;
    const body = { data: { [id]: value } };
    await client.patch(configMaps, { namespace, name: LOGS_TO_ERASE }, { kind: "merge", body });
  }
}
