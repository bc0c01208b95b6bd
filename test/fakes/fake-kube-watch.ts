import type { ListOptions, WatchEvent, WatchOptions } from "../../src/kube/client.ts";
import type { KubeObject, ResourceType } from "../../src/kube/objects.ts";
import { fieldMatcher, labelMatcher } from "./fake-kube-selectors.ts";

export type StoredObject = KubeObject & Record<string, unknown>;

export interface Recorded {
  version: number;
  type: "ADDED" | "MODIFIED" | "DELETED";
  kind: string;
  object: StoredObject;
  /** The form before, to tell a watch with a selector that an object has left it. */
  previous: StoredObject | undefined;
}

export type Matcher = (object: StoredObject, kind: string) => boolean;

export function matcher(type: ResourceType, where: ListOptions | WatchOptions): Matcher {
  const labels = labelMatcher(where.labelSelector);
  const fields = fieldMatcher(where.fieldSelector);
  const wanted = `${type.group}/${type.kind}`;
  return (object, kind) =>
    kind === wanted &&
    (where.namespace === undefined || object.metadata.namespace === where.namespace) &&
    labels(object.metadata.labels ?? {}) &&
    fields(object);
}

export class FakeWatch {
  readonly type: ResourceType;
  readonly #matches: Matcher;
  readonly #signal: AbortSignal;
  readonly #queue: WatchEvent<KubeObject>[] = [];
  #ended: { error: Error | undefined } | undefined;
  #wake = () => {};

  constructor(type: ResourceType, options: WatchOptions) {
    this.type = type;
    this.#matches = matcher(type, options);
    this.#signal = options.signal;
  }

  /** Sends the record if it concerns this watch; entering and leaving a selector is add and delete. */
  offer({ type, kind, object, previous }: Recorded): void {
    const now = type !== "DELETED" && this.#matches(object, kind);
    const before = previous !== undefined && this.#matches(previous, kind);
    if (now && before) this.push({ type: "MODIFIED", object: copy(object) });
    else if (now) this.push({ type: "ADDED", object: copy(object) });
    else if (before) this.push({ type: "DELETED", object: copy(object) });
  }

  push(event: WatchEvent<KubeObject>): void {
    if (this.#ended !== undefined) return;
    this.#queue.push(event);
    this.#wake();
  }

  end(error?: Error): void {
    this.#ended ??= { error };
    this.#wake();
  }

  async *events(): AsyncGenerator<WatchEvent<KubeObject>> {
    const onAbort = () =>
      this.end(new Error("the watch was aborted", { cause: this.#signal.reason }));
    this.#signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        const event = this.#queue.shift();
        if (event !== undefined) {
          yield event;
        } else if (this.#ended !== undefined) {
          if (this.#ended.error !== undefined) throw this.#ended.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#signal.removeEventListener("abort", onAbort);
    }
  }
}

function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}
