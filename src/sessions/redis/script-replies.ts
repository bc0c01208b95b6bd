import type { ClaimBatch } from "../backend.ts";
import type {
  AppendReply,
  BarrierReply,
  LeasedAppendReply,
  ReleaseReply,
  SettleReply,
  WakeReply,
} from "../log-state.ts";
import type { SessionRef } from "../session-log.ts";
import { statusOf } from "./plain-reads.ts";
import { listsOf, unexpected } from "./script-runner.ts";

/** What the scripts answer, as the words of the state machine. */

export function appendReply([word = "", first, last]: string[]): AppendReply {
  switch (word) {
    case "OK":
      return { word, first: Number(first), last: Number(last) };
    case "DUP":
      return { word, first: Number(first) };
    case "MORE":
      return { word, seq: Number(first) };
    case "NOSESSION":
    case "CLOSED":
    case "QUARANTINED":
      return { word };
    default:
      throw unexpected(word);
  }
}

export function leasedAppendReply([word = "", a, b, chain = ""]: string[]): LeasedAppendReply {
  switch (word) {
    case "OK":
    case "DUP":
      return { word, first: Number(a), last: Number(b), chain };
    case "MORE":
    case "REWOUND":
      return { word, seq: Number(a) };
    case "FENCED":
    case "NOSESSION":
      return { word };
    default:
      throw unexpected(word);
  }
}

export function barrierReply([word = "", seq]: string[]): BarrierReply {
  switch (word) {
    case "REWOUND":
      return { word, seq: Number(seq) };
    case "OK":
    case "FENCED":
    case "NOSESSION":
      return { word };
    default:
      throw unexpected(word);
  }
}

export function releaseReply([word = "", seq]: string[]): ReleaseReply {
  switch (word) {
    case "MORE":
      return { word, seq: Number(seq) };
    case "OK":
    case "FENCED":
    case "NOSESSION":
      return { word };
    default:
      throw unexpected(word);
  }
}

export function wakeReply([word = ""]: string[]): WakeReply {
  switch (word) {
    case "OK":
    case "NOSESSION":
    case "CLOSED":
      return { word };
    default:
      throw unexpected(word);
  }
}

export function settleReply([word = ""]: string[]): SettleReply {
  switch (word) {
    case "OK":
    case "DONE":
    case "NOSESSION":
      return { word };
    default:
      throw unexpected(word);
  }
}

/** `at`: when the store answered, by its own clock. */
export function claimReply(
  reply: unknown,
  refOf: (member: string) => SessionRef,
): ClaimBatch & { at: number } {
  if (!Array.isArray(reply)) throw unexpected(reply);
  const leases = listsOf(reply[1]).map(
    ([member = "", epoch, token = "", seq, takeover, previousOwner = ""]) => ({
      ref: refOf(member),
      epoch: Number(epoch),
      token,
      seq: Number(seq),
      takeover: Number(takeover),
      previousOwner,
    }),
  );
  const unsettled = listsOf(reply[2]).map(([member = "", epoch, st, why = ""]) => ({
    ref: refOf(member),
    epoch: Number(epoch),
    status: statusOf(st),
    why,
  }));
  return { at: Number(reply[0]), leases, unsettled };
}
