import type { Clock } from "../runtime/clock.ts";
import type { WatchEvent } from "./client.ts";
import { connectionError, watchError } from "./kube-status.ts";
import type { KubeObject } from "./objects.ts";

/** The bytes of a watch's answer; `destroy` makes reading throw the error. */
export interface ByteStream extends AsyncIterable<Uint8Array> {
  destroy(error?: Error): unknown;
}

interface WireEvent<T> {
  type: string;
  object: T;
}

/**
 * The events of a watch: one JSON object a line. Ends with the stream; throws KubeError for an
 * `ERROR` event, SyntaxError for a line that is no JSON, and KubeError with reason `Timeout` after `silenceMs` without
 * a byte.
 */
export async function* watchEvents<T extends KubeObject>(
  stream: ByteStream,
  options: { what: string; silenceMs: number },
  clock: Pick<Clock, "timer">,
): AsyncGenerator<WatchEvent<T>> {
  const { what, silenceMs } = options;
  const silence = new Error(`nothing arrived for ${silenceMs} ms`);
  let cancel = clock.timer(silenceMs, () => stream.destroy(silence));
  const decoder = new TextDecoder();
  let rest: string[] = [];
  try {
    for await (const chunk of stream) {
      cancel();
      const lines = decoder.decode(chunk, { stream: true }).split("\n");
      const last = lines.pop() ?? "";
      for (const line of lines) {
        const whole = rest.length === 0 ? line : [...rest, line].join("");
        rest = [];
        if (whole.trim() === "") continue;
        const wire: WireEvent<T> = JSON.parse(whole);
        const event = parseEvent(wire, what);
        if (event !== undefined) yield event;
      }
      if (last !== "") rest.push(last);
      cancel = clock.timer(silenceMs, () => stream.destroy(silence));
    }
  } catch (error) {
    throw error === silence ? connectionError(what, error, true) : error;
  } finally {
    cancel();
  }
}

function parseEvent<T extends KubeObject>(event: WireEvent<T>, what: string) {
  switch (event.type) {
    case "ADDED":
    case "MODIFIED":
    case "DELETED":
      return { type: event.type, object: event.object } as const;
    case "BOOKMARK": {
      const resourceVersion = event.object.metadata.resourceVersion ?? "";
      return { type: "BOOKMARK", resourceVersion } as const;
    }
    case "ERROR":
      throw watchError(what, event.object);
    default:
      return undefined; // a type that a later version of the API may add
  }
}
