import type { Clock } from "../../runtime/clock.ts";
import type { Delta, LogBackend } from "../backend.ts";
import {
  type Position,
  positionOf,
  type SessionRef,
  START,
  type TailItem,
} from "../session-log.ts";
import { Doorbell } from "./doorbell.ts";
import { sessionNotFound } from "./log-errors.ts";

/**
 * A missed hint is caught by the next one or by this look at the log
 * (docs/design/session-log.md#readers).
 */
const SAFETY_POLL_MS = 5000;
const PAGE_SIZE = 256;
/** Positions kept to say where a rewound log still agrees with what was emitted. */
const REMEMBERED = 1024;

/**
 * History after a position, then live. Every read includes the last event emitted, so a log that
 * was rewound is noticed: `rewound` names the last position that still holds, and events follow
 * from there. Deltas come only live and may be missing.
 */
export async function* tailLog(
  deps: { backend: Pick<LogBackend, "read" | "watch">; clock: Clock },
  ref: SessionRef,
  options: { after: Position | null; deltas?: boolean; signal: AbortSignal },
): AsyncGenerator<TailItem> {
  const bell = new Doorbell(deps.clock);
  let deltas: Delta[] = [];
  const unwatch = deps.backend.watch(ref, {
    onHint: () => bell.ring(),
    ...(options.deltas === true
      ? {
          onDelta: (delta: Delta) => {
            deltas.push(delta);
            bell.ring();
          },
        }
      : {}),
  });
  try {
    const trail = new Trail(options.after ?? START);
    let caughtUp = false;
    while (!options.signal.aborted) {
      const page = await readOn(deps.backend, ref, trail.last);
      if (page.rewound) {
        const lastGood = await lastCommon(deps.backend, ref, trail);
        trail.cutTo(lastGood);
        caughtUp = false;
        yield { kind: "rewound", lastGood };
        continue;
      }
      for (const event of page.events) {
        trail.push(positionOf(event));
        yield { kind: "event", event };
        if (options.signal.aborted) return;
      }
      if (page.more) continue;
      if (!caughtUp) yield { kind: "caught-up", pos: trail.last };
      caughtUp = true;
      const live = deltas;
      deltas = [];
      for (const delta of live) yield { kind: "delta", ...delta };
      if (live.length === 0) await bell.wait(SAFETY_POLL_MS, options.signal);
    }
  } finally {
    unwatch();
  }
}

async function readOn(backend: Pick<LogBackend, "read">, ref: SessionRef, last: Position) {
  const limit = PAGE_SIZE + 1;
  const page = await backend.read(ref, {
    after: Math.max(0, last.seq - 1),
    limit,
    reverse: false,
  });
  if (page === null) throw sessionNotFound(ref);
  if (last.seq > 0 && !isAt(page[0], last)) return { rewound: true as const };
  return {
    rewound: false as const,
    events: last.seq > 0 ? page.slice(1) : page,
    more: page.length === limit,
  };
}

/** The highest remembered position the log still has, else the start. */
async function lastCommon(
  backend: Pick<LogBackend, "read">,
  ref: SessionRef,
  trail: Trail,
): Promise<Position> {
  for (const position of trail.backwards()) {
    if (position.seq === 0) break;
    const [event] =
      (await backend.read(ref, { after: position.seq - 1, limit: 1, reverse: false })) ?? [];
    if (isAt(event, position)) return position;
  }
  return START;
}

function isAt(event: Position | undefined, { seq, id, chain }: Position): boolean {
  return event?.seq === seq && event.id === id && event.chain === chain;
}

class Trail {
  #positions: Position[];

  constructor(start: Position) {
    this.#positions = [start];
  }

  get last(): Position {
    return this.#positions.at(-1) ?? START;
  }

  push(position: Position): void {
    this.#positions.push(position);
    if (this.#positions.length > REMEMBERED) this.#positions.shift();
  }

  backwards(): Position[] {
    return this.#positions.toReversed();
  }

  cutTo(position: Position): void {
    this.#positions = [...this.#positions.filter((each) => each.seq < position.seq), position];
  }
}
