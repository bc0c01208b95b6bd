import { type AuditRecord, auditRecord, hashOf } from "./audit-record.ts";

/** What is wrong with the audit lines of a log; one sentence a problem. */
export interface AuditReport {
  records: number;
  /** The last record of each chain, to be compared with later checkpoints. */
  heads: { chain: string; podUid: string; seq: number; hash: string }[];
  problems: string[];
  /** What is as it should be and still to be known. */
  notes: string[];
}

/** Signed by the issuer, or noted by who asks; then nobody has said of which pod and when. */
export interface KnownCheckpoint {
  chain: string;
  seq: number;
  hash: string;
  podUid?: string;
}

export interface AuditVerificationOptions {
  /** Whose records the log holds; without, all of which there is a checkpoint. */
  pods?: readonly string[];
  /** Epoch ms. */
  now?: number;
}

/** Until then the records at the end of a chain may lack their checkpoint; a proxy asks each 5 s. */
const FRESH_MS = 60_000;

/** One chain of one pod, as far as it was read. */
interface Chain {
  last: AuditRecord;
  /** A checkpoint was met and its hash is right, or the chain begins after one. */
  isProven: boolean;
  /** First record after the last such checkpoint. */
  unproven?: { seq: number; time: string } | undefined;
}

/**
 * Reads the lines of a log, passes over those that are not of the audit, and follows each chain.
 * Notices records that were dropped, moved, edited or doubled. With checkpoints it also notices a cut
 * end, a chain that is missing as a whole, and records and chains that no proxy has written.
 */
export class AuditVerification {
  readonly #checkpoints: readonly KnownCheckpoint[];
  /** By chain and number of the record. */
  readonly #byRecord = new Map<string, KnownCheckpoint[]>();
  readonly #pods: ReadonlySet<string> | undefined;
  readonly #now: number;
  readonly #chains = new Map<string, Chain>();
  readonly #problems: string[] = [];
  #records = 0;

  constructor(
    checkpoints: readonly KnownCheckpoint[],
    { pods, now = 0 }: AuditVerificationOptions = {},
  ) {
    this.#pods = pods === undefined || pods.length === 0 ? undefined : new Set(pods);
    this.#now = now;
    this.#checkpoints = checkpoints.filter(
      ({ podUid }) => podUid === undefined || this.#pods?.has(podUid) !== false,
    );
    for (const checkpoint of this.#checkpoints) {
      const key = `${checkpoint.chain}:${checkpoint.seq}`;
      this.#byRecord.set(key, [...(this.#byRecord.get(key) ?? []), checkpoint]);
    }
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
    const chains = [...this.#chains.values()];
    const problems = [...this.#problems, ...this.#missing()];
    const notes: string[] = [];
    for (const chain of chains) {
      const { last } = chain;
      if (this.#pods?.has(last.podUid) === false) {
        problems.push(`${nameOf(last)} is of another pod than was asked for`);
      }
      const said = this.#saysUnproven(chain);
      if (said !== undefined) (said.isFresh ? notes : problems).push(said.text);
    }
    const heads = chains.map(({ last: { chain, podUid, seq, hash } }) => {
      return { chain, podUid, seq, hash };
    });
    return { records: this.#records, heads, problems, notes };
  }

  /** Without any checkpoint nothing can be said of who wrote a chain. */
  #saysUnproven({
    last,
    isProven,
    unproven,
  }: Chain): { text: string; isFresh: boolean } | undefined {
    if (this.#checkpoints.length === 0 || unproven === undefined) return undefined;
    const name = nameOf(last);
    if (!isProven) {
      const text =
        `${name} has no checkpoint: whoever writes to this log may have made it up, ` +
        "or it began in the last seconds";
      return { text, isFresh: false };
    }
    const isFresh = Math.abs(this.#now - Date.parse(unproven.time)) <= FRESH_MS;
    const records = `${name}: records ${unproven.seq} to ${last.seq} have no checkpoint`;
    const text = isFresh
      ? `${records} yet; verify again in a minute`
      : `${records}: they were added by somebody else, or the proxy ended before it could ask for one`;
    return { text, isFresh };
  }

  /** Of each chain the last checkpoint that is beyond its records. */
  #missing(): string[] {
    const ends = new Map<string, KnownCheckpoint>();
    for (const checkpoint of this.#checkpoints) {
      const end = this.#endOf(checkpoint);
      const key = keyOf(checkpoint);
      const before = ends.get(key);
      if (checkpoint.seq <= end || (before !== undefined && before.seq >= checkpoint.seq)) continue;
      ends.set(key, checkpoint);
    }
    return [...ends.values()].map((checkpoint) => {
      const end = this.#endOf(checkpoint);
      const what = `${nameOf(checkpoint)}: record ${checkpoint.seq} of a checkpoint is missing`;
      return end === 0
        ? `${what}, and all before it; a container that was started again has them in its earlier log`
        : `${what}: the log ends at ${end}`;
    });
  }

  /** Number of the last record of the checkpoint's chain, 0 without any. */
  #endOf(checkpoint: KnownCheckpoint): number {
    if (checkpoint.podUid !== undefined) {
      return this.#chains.get(keyOf(checkpoint))?.last.seq ?? 0;
    }
    const ends = [...this.#chains.values()]
      .filter(({ last }) => last.chain === checkpoint.chain)
      .map(({ last }) => last.seq);
    return Math.max(0, ...ends);
  }

  #check(record: AuditRecord): void {
    const { hash, ...rest } = record;
    const { seq } = record;
    const key = keyOf(record);
    const chain = this.#chains.get(key);
    const say = (what: string) => this.#problems.push(`${nameOf(record)}: record ${seq} ${what}`);
    if (hashOf(rest) !== hash) say("was edited: its hash is another");
    const known = chain === undefined ? this.#of(record, seq - 1)[0] : undefined;
    // A chain begins with its first record, or after a checkpoint.
    const begin = chain?.last ?? known ?? { seq: 0, hash: "" };
    if (seq <= begin.seq) {
      say(`stands after record ${begin.seq}`);
      return;
    }
    if (seq > begin.seq + 1) say(`follows ${begin.seq}: what was between is missing`);
    else if (record.prevHash !== begin.hash) say("does not fit the one before it");
    const own = this.#of(record, seq);
    const isRight = own.every((checkpoint) => checkpoint.hash === hash);
    if (!isRight) say("differs from its checkpoint");
    const isProven = own.length > 0 && isRight;
    this.#chains.set(key, {
      last: record,
      isProven: isProven || known !== undefined || chain?.isProven === true,
      unproven: isProven ? undefined : (chain?.unproven ?? { seq, time: record.time }),
    });
  }

  #of({ chain, podUid }: AuditRecord, seq: number): readonly KnownCheckpoint[] {
    const known = this.#byRecord.get(`${chain}:${seq}`) ?? [];
    return known.filter((one) => one.podUid === undefined || one.podUid === podUid);
  }
}

/** The same chain in another pod is another chain: it has to have checkpoints of its own. */
function keyOf({ podUid = "", chain }: { podUid?: string; chain: string }): string {
  return `${podUid}/${chain}`;
}

function nameOf({ podUid, chain }: { podUid?: string; chain: string }): string {
  return podUid === undefined ? `chain ${chain}` : `chain ${chain} of pod ${podUid}`;
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
