import type { Lease, WakeQueue } from "../../../src/sessions/session-log.ts";

/** The queue, but each lease goes through `change` before the worker has it. */
export function withLeases(
  queue: WakeQueue,
  change: (lease: Lease) => Lease | Promise<Lease>,
): WakeQueue {
  return {
    claim: async function* claim(options) {
      for await (const lease of queue.claim(options)) yield await change(lease);
    },
    workers: () => queue.workers(),
    quarantined: () => queue.quarantined(),
    close: () => queue.close(),
  };
}
