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
 * is noticed (`drover audit verify`), and checkpoints of it in the shared store, so that a cut end is.
 * A line that cannot be written waits, and the uses that change something are refused meanwhile.
 */
export class AuditLog {
  readonly #deps: AuditLogDeps;
  readonly #chain = randomUUID();
  #seq = 0;
  #hash = "";
  #checkpointed = 0;
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
      pod_uid: podUid,
      chain: this.#chain,
      seq: this.#seq,
      prev_hash: this.#hash,
      ts: new Date(clock.now()).toISOString(),
      role: use.role,
      tenant: use.tenant,
      session: use.session,
      epoch: use.epoch,
      tool_use_id: use.toolUseId,
      server_ref: use.serverRef,
      method: use.method,
      tool: use.tool,
      args_sha256: use.argsSha256,
      refs: use.refs?.slice(0, MAX_REFS).map((ref) => ref.slice(0, MAX_REF_LENGTH)),
      cred_id: use.credId,
      cred_version: use.credVersion,
      decision: allowedBy === undefined ? ("deny" as const) : ("allow" as const),
      rule: allowedBy ?? error ?? "UNKNOWN",
      error: allowedBy === undefined ? undefined : error,
      upstream_status: use.upstreamStatus,
      bytes_in: use.bytesIn,
      bytes_out: use.bytesOut,
      ms: Math.round(use.ms),
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
        this.#deps.logger.error({ err: describeError(error) }, "audit log not written");
        return false;
      }
      this.#waiting.shift();
    }
    return true;
  }

  async #checkpoint(): Promise<void> {
    const { checkpoints, podUid, clock, logger } = this.#deps;
    const [seq, hash] = [this.#seq, this.#hash];
    if (seq === this.#checkpointed) return;
    const ts = new Date(clock.now()).toISOString();
    try {
      await checkpoints.keepCheckpoint({ chain: this.#chain, podUid, seq, hash, ts });
      this.#checkpointed = seq;
    } catch (error) {
      logger.warn({ err: describeError(error) }, "audit checkpoint not kept; it is tried again");
    }
  }
}
