import { randomUUID } from "node:crypto";
import type { AuditCheckpoints } from "../protocol/proxy-ports.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { type AuditRecord, hashOf } from "./audit-record.ts";
import type { ProxyMetrics } from "./metrics.ts";

/** What becomes known of a use while it is served; whoever learns a field sets it. */
export interface Use {
  tenant?: string;
  session?: string;
  epoch?: number;
  toolUseId?: string;
  serverRef?: string;
  method?: string;
  tool?: string;
  argsSha256?: string;
  /** `<ref> <new object id>` of a push. */
  refs?: readonly string[];
  credId?: string;
  credVersion?: string;
  /** Set at the moment the other side is asked. */
  allowedBy?: string;
  /** Code of the error that refused it or by which it failed. */
  error?: string;
  upstreamStatus?: number;
  redactions: number;
}

export interface ServedUse extends Use {
  role: string;
  bytesIn: number;
  bytesOut: number;
  ms: number;
}

/** Takes whole lines. Throws when one cannot be written. */
export interface AuditSink {
  write(line: string): void;
}

export interface AuditLogDeps {
  sink: AuditSink;
  checkpoints: AuditCheckpoints;
  process: string;
  podUid: string;
  clock: Clock;
  logger: Logger;
  metrics: Pick<ProxyMetrics, "auditRecords">;
}

/** Records that wait for a sink that fails; past them every use is refused. */
const MAX_WAITING = 1000;
const CHECKPOINT_MS = 5000;
/** Of one push in its record. */
const MAX_REFS = 32;
const MAX_REF_LENGTH = 300;

/**
 * The audit log of one process: a chain of hashes, so that a line that was dropped, moved or edited
 * is noticed (`drover audit verify`), and checkpoints of it that the issuer signs and keeps, so that a
 * cut end and a chain of somebody else are. While the issuer is away checkpoints wait: the next one
 * stands for all records before it.
 * A line that cannot be written waits, and the uses that change something are refused meanwhile.
 */
export class AuditLog {
  readonly #deps: AuditLogDeps;
  readonly #chain = randomUUID();
  #seq = 0;
  #hash = "";
  #checkpointed = 0;
  #checkpointsFail = false;
  #sinkFails = false;
  #waiting: string[] = [];

  constructor(deps: AuditLogDeps) {
    this.#deps = deps;
  }

  /** Throws UNAVAILABLE (retryable) when a use, recorded now, might leave no trace. */
  check({ hasEffect }: { hasEffect: boolean }): void {
    if (this.#waiting.length === 0 || this.#flush()) return;
    if (!hasEffect && this.#waiting.length < MAX_WAITING) return;
    throw new AppError(
      "UNAVAILABLE",
      "the audit log cannot be written; until it can, calls with effects are refused",
      { retryable: true },
    );
  }

  record(use: ServedUse): void {
    if (this.#waiting.length >= MAX_WAITING) {
      this.#deps.metrics.auditRecords.inc({ outcome: "lost" });
      return;
    }
    const record = this.#next(use);
    this.#waiting.push(JSON.stringify(record));
    this.#deps.metrics.auditRecords.inc({ outcome: this.#flush() ? "written" : "waiting" });
  }

  /** Keeps a checkpoint every 5 s in which something was recorded, and one at the end. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      // Rejects when the process is to stop; the loop's condition sees that.
      await this.#deps.clock.sleep(CHECKPOINT_MS, signal).catch(() => {});
      await this.#checkpoint();
    }
  }

  #next(use: ServedUse): AuditRecord {
    const { process, podUid, clock } = this.#deps;
    const { allowedBy, error } = use;
    this.#seq += 1;
    const record = {
      audit: true as const,
      level: "info" as const,
      process,
      podUid,
      chain: this.#chain,
      seq: this.#seq,
      prevHash: this.#hash,
      time: new Date(clock.now()).toISOString(),
      role: use.role,
      namespace: use.tenant,
      sessionId: use.session,
      epoch: use.epoch,
      toolCallId: use.toolUseId,
      server: use.serverRef,
      method: use.method,
      tool: use.tool,
      argsSha256: use.argsSha256,
      refs: use.refs?.slice(0, MAX_REFS).map((ref) => ref.slice(0, MAX_REF_LENGTH)),
      credential: use.credId,
      credentialVersion: use.credVersion,
      decision: allowedBy === undefined ? ("deny" as const) : ("allow" as const),
      rule: allowedBy ?? error ?? "UNKNOWN",
      code: allowedBy === undefined ? undefined : error,
      upstreamStatus: use.upstreamStatus,
      bytesIn: use.bytesIn,
      bytesOut: use.bytesOut,
      durationMs: Math.round(use.ms),
      redactions: use.redactions,
    };
    this.#hash = hashOf(record);
    return { ...record, hash: this.#hash };
  }

  /** True when nothing waits any more. */
  #flush(): boolean {
    while (this.#waiting[0] !== undefined) {
      try {
        this.#deps.sink.write(this.#waiting[0]);
      } catch (error) {
        if (!this.#sinkFails) {
          this.#deps.logger.error({ err: describeError(error) }, "audit log not written");
        }
        this.#sinkFails = true;
        return false;
      }
      this.#waiting.shift();
    }
    if (this.#sinkFails) this.#deps.logger.info({ chain: this.#chain }, "audit log written again");
    this.#sinkFails = false;
    return true;
  }

  async #checkpoint(): Promise<void> {
    const { checkpoints, logger } = this.#deps;
    const [chain, seq, hash] = [this.#chain, this.#seq, this.#hash];
    if (seq === this.#checkpointed) return;
    try {
      await checkpoints.keepCheckpoint({ chain, seq, hash });
      this.#checkpointed = seq;
      if (this.#checkpointsFail) logger.info({ chain, seq }, "audit checkpoints kept again");
      this.#checkpointsFail = false;
    } catch (error) {
      if (!this.#checkpointsFail) {
        const fields = { chain, seq, err: describeError(error) };
        logger.warn(fields, "audit checkpoints not kept; they are tried again");
      }
      this.#checkpointsFail = true;
    }
  }
}
