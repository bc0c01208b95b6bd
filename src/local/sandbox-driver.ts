import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Jwks } from "../protocol/tokens.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError, hasCode } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { OperatorLog, SandboxRequest, SessionRef } from "../sessions/session-log.ts";
import type { DataDirectory } from "./data-directory.ts";
import {
  runSetupScript,
  type SandboxPlace,
  type SandboxProcess,
  startSandboxProcess,
} from "./sandbox-process.ts";

export interface SandboxDriverOptions {
  operator: OperatorLog;
  data: DataDirectory;
  /** Program and arguments that start the daemon. */
  sandboxCommand: readonly string[];
  nodeDirectory: string;
  publicKeys: Jwks;
  clock: Clock;
  rng: Rng;
  logger: Logger;
}

interface Hand {
  ref: SessionRef;
  hand: string;
  generation: number;
}

/**
 * Local mode's answer to sandbox requests: a daemon process for each hand and generation, in a
 * folder of its own. NOT a security boundary: tools run as the user who started Drover.
 *
 * After a restart the same folders get a new daemon: workspace and journal are still there, so the
 * generation goes on and a repeated call finds its recorded result.
 */
export class LocalSandboxDriver {
  readonly #options: SandboxDriverOptions;
  readonly #running = new Map<string, SandboxProcess>();
  /** A hand is started by a request and, after a restart, by `resume`: whoever comes second waits. */
  readonly #starting = new Map<string, Promise<void>>();

  constructor(options: SandboxDriverOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    try {
      for await (const request of this.#options.operator.requests(signal)) {
        await this.#answer(request, signal);
      }
    } finally {
      const processes = [...this.#running.values()];
      this.#running.clear();
      await Promise.all(processes.map((sandbox) => sandbox.stop()));
    }
  }

  /** Starts daemons again in the folders an earlier process left for this session. */
  async resume(ref: SessionRef, signal: AbortSignal): Promise<void> {
    for (const hand of await this.#handsOf(ref)) {
      await this.#provision(hand, `resumed:${this.#options.rng.id("run")}`, signal);
    }
  }

  /** Removes the folders of a session's sandboxes: it is finished and will not be resumed. */
  async forget(ref: SessionRef): Promise<void> {
    for (const hand of await this.#handsOf(ref)) await this.#release(sandboxIdOf(hand));
  }

  async #answer(request: SandboxRequest, signal: AbortSignal): Promise<void> {
    const { ref, hand, generation } = request;
    const id = sandboxIdOf({ ref, hand, generation });
    if (request.kind === "release") await this.#release(id);
    else await this.#provision({ ref, hand, generation }, request.requestId, signal);
    await this.#options.operator.answered(request);
  }

  async #provision(hand: Hand, idempotencyKey: string, signal: AbortSignal): Promise<void> {
    const id = sandboxIdOf(hand);
    if (this.#running.has(id)) return;
    let starting = this.#starting.get(id);
    if (starting === undefined) {
      starting = this.#startAndAnswer(hand, idempotencyKey, signal).finally(() =>
        this.#starting.delete(id),
      );
      this.#starting.set(id, starting);
    }
    await starting;
  }

  async #startAndAnswer(hand: Hand, idempotencyKey: string, signal: AbortSignal): Promise<void> {
    const { operator, rng, logger } = this.#options;
    const sandboxId = sandboxIdOf(hand);
    try {
      const sandbox = await this.#start(hand, sandboxId, signal);
      this.#running.set(sandboxId, sandbox);
      await operator.bindSandbox(sandboxId, {
        sessionId: hand.ref.id,
        tenant: hand.ref.tenant,
        hand: hand.hand,
        generation: hand.generation,
        ip: "127.0.0.1",
      });
      await operator.emitEvents(
        hand.ref,
        [
          {
            id: rng.id("sevt"),
            type: "sandbox.provisioned",
            data: {
              hand: hand.hand,
              generation: hand.generation,
              sandboxId,
              address: sandbox.address,
            },
          },
        ],
        { idempotencyKey },
      );
      void sandbox.ended.then((how) => this.#onEnd(hand, sandboxId, how));
    } catch (error) {
      if (signal.aborted) return;
      logger.warn({ sandbox: sandboxId, err: describeError(error) }, "sandbox not started");
      await this.#emitLost(hand, idempotencyKey, "SetupFailed", describeError(error));
    }
  }

  async #start(hand: Hand, sandboxId: string, signal: AbortSignal): Promise<SandboxProcess> {
    const { data, operator, clock, logger } = this.#options;
    const root = data.sandboxDirectory(sandboxId);
    const place: SandboxPlace = {
      sandboxId,
      workspace: join(root, "workspace"),
      journal: join(root, "journal"),
      temporary: join(root, "tmp"),
      examples: data.examplesDirectory,
      processRecord: join(root, "process.json"),
    };
    for (const folder of [place.workspace, place.journal, place.temporary]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
    const snapshot = await operator.snapshotOf(hand.ref);
    const record = join(root, "hand.json");
    const script = snapshot?.template?.setupScript;
    if (script !== undefined && !(await exists(record))) {
      const deadlineMs = (snapshot?.template?.startDeadlineSeconds ?? 120) * 1000;
      await withDeadline(
        clock,
        deadlineMs,
        "the set-up script",
        (limit) => runSetupScript(script, place, this.#options.nodeDirectory, limit),
        signal,
      );
    }
    // Written after the set-up script: a kill in between runs the script again from the start.
    await writeFile(record, JSON.stringify(hand));
    return await startSandboxProcess(
      this.#options.sandboxCommand,
      place,
      this.#options.publicKeys,
      this.#options.nodeDirectory,
      clock,
      (line) => logger.error({ sandbox: sandboxId, reason: line }, "a sandbox daemon complains"),
    );
  }

  async #release(sandboxId: string): Promise<void> {
    const sandbox = this.#running.get(sandboxId);
    this.#running.delete(sandboxId);
    await this.#options.operator.unbindSandbox(sandboxId);
    await sandbox?.stop();
    await rm(this.#options.data.sandboxDirectory(sandboxId), { recursive: true, force: true });
  }

  async #onEnd(hand: Hand, sandboxId: string, how: string): Promise<void> {
    // Not in the map: it was stopped on purpose.
    if (!this.#running.delete(sandboxId)) return;
    try {
      await this.#options.operator.unbindSandbox(sandboxId);
      await this.#emitLost(
        hand,
        `${sandboxId}:ended`,
        "ProcessEnded",
        `the sandbox ended (${how})`,
      );
    } catch (error) {
      this.#options.logger.warn(
        { sandbox: sandboxId, err: describeError(error) },
        "loss not logged",
      );
    }
  }

  async #emitLost(hand: Hand, key: string, reason: string, message: string): Promise<void> {
    const data = { hand: hand.hand, generation: hand.generation, reason, message };
    const event = { id: this.#options.rng.id("sevt"), type: "sandbox.lost", data };
    try {
      await this.#options.operator.emitEvents(hand.ref, [event], { idempotencyKey: key });
    } catch (error) {
      // A session that is over needs no news of its sandbox.
      if (!hasCode(error, "SESSION_CLOSED") && !hasCode(error, "SESSION_NOT_FOUND")) throw error;
    }
  }

  async #handsOf(ref: SessionRef): Promise<Hand[]> {
    const folder = this.#options.data.sandboxDirectory("");
    const hands: Hand[] = [];
    for (const name of await readdir(folder).catch(() => [])) {
      const text = await readFile(join(folder, name, "hand.json"), "utf8").catch(() => "");
      if (text === "") continue;
      const hand: Hand = JSON.parse(text);
      if (hand.ref.id === ref.id && hand.ref.tenant === ref.tenant) hands.push(hand);
    }
    return hands;
  }
}

/** The same hand and generation is the same folder in every run. */
function sandboxIdOf(hand: Hand): string {
  const text = JSON.stringify([hand.ref.tenant, hand.ref.id, hand.hand, hand.generation]);
  return `sbx-${createHash("sha256").update(text).digest("hex").slice(0, 16)}`;
}

async function exists(file: string): Promise<boolean> {
  try {
    await readFile(file);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
}
