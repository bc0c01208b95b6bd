import type { AuditCheckpoint } from "../protocol/proxy-ports.ts";
import { type AuditRecord, auditRecord, hashOf } from "./audit-record.ts";

/** What is wrong with the audit lines of a log; one sentence a problem. */
export interface AuditReport {
  records: number;
  /** The last record of each chain, to be compared with later checkpoints. */
  heads: { chain: string; podUid: string; seq: number; hash: string }[];
  problems: string[];
}

export type KnownCheckpoint = Pick<AuditCheckpoint, "chain" | "seq" | "hash">;

/**
 * Reads the lines of a log, passes over those that are not of the audit, and follows each chain.
 * Notices records that were dropped, moved, edited or doubled; with checkpoints also a cut end,
 * and a chain that has none beside those that have.
 */
export class AuditVerification {
  readonly #checkpoints: readonly KnownCheckpoint[];
  readonly #last = new Map<string, AuditRecord>();
  readonly #seen = new Set<KnownCheckpoint>();
  readonly #problems: string[] = [];
  #records = 0;

  constructor(checkpoints: readonly KnownCheckpoint[]) {
    this.#checkpoints = checkpoints;
  }

  add(line: string): void {
    if (!line.includes('"audit":true')) return;
    const parsed = auditRecord.strict().safeParse(parse(line));
    this.#records += 1;
    if (!parsed.success) {
      this.#problems.push(`line of the audit that is no audit record: ${line.slice(0, 80)}`);
      return;
    }
    this.#check(parsed.data);
  }

  report(): AuditReport {
    const cut = this.#checkpoints
      .filter((checkpoint) => !this.#seen.has(checkpoint))
      .map(({ chain, seq }) => `chain ${chain}: record ${seq} of a checkpoint is missing`);
    const heads = [...this.#last.values()].map(({ chain, pod_uid: podUid, seq, hash }) => {
      return { chain, podUid, seq, hash };
    });
    const unknown = heads
      .filter(({ chain }) => this.#isStrange(chain))
      .map(
        ({ chain, podUid }) =>
          `chain ${chain} of pod ${podUid} has no checkpoint: whoever writes to this log may have ` +
          "made it up, or it began in the last seconds",
      );
    return { records: this.#records, heads, problems: [...this.#problems, ...cut, ...unknown] };
  }

  /** Without any checkpoint nothing can be said of who wrote a chain. */
  #isStrange(chain: string): boolean {
    return (
      this.#checkpoints.length > 0 &&
      !this.#checkpoints.some((checkpoint) => checkpoint.chain === chain)
    );
  }

  #check(record: AuditRecord): void {
    const { hash, ...rest } = record;
    const { chain, seq } = record;
    const last = this.#last.get(chain);
    const say = (what: string) => this.#problems.push(`chain ${chain}: record ${seq} ${what}`);
    if (hashOf(rest) !== hash) say("was edited: its hash is another");
    const begin = last ?? this.#begin(record);
    if (seq <= begin.seq) {
      say(`stands after record ${begin.seq}`);
      return;
    }
    if (seq > begin.seq + 1) say(`follows ${begin.seq}: what was between is missing`);
    else if (record.prev_hash !== begin.hash) say("does not fit the one before it");
    for (const checkpoint of this.#checkpoints) {
      if (checkpoint.chain !== chain || checkpoint.seq !== seq) continue;
      this.#seen.add(checkpoint);
      if (checkpoint.hash !== hash) say("differs from its checkpoint");
    }
    this.#last.set(chain, record);
  }

  /** Where a chain may begin: at its first record, or after a checkpoint. */
  #begin({ chain, seq }: AuditRecord): { seq: number; hash: string } {
    const before = this.#checkpoints.find(
      (checkpoint) => checkpoint.chain === chain && checkpoint.seq === seq - 1,
    );
    if (before !== undefined) this.#seen.add(before);
    return before ?? { seq: 0, hash: "" };
  }
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
