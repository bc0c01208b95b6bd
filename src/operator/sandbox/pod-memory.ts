import type { Watch } from "../../kube/controller.ts";
import type { Informer } from "../../kube/informer.ts";
import { uidOf } from "../../kube/objects.ts";
import type { Pod } from "../kinds.ts";
import { keyOfPod } from "./sandbox-key.ts";

/**
 * What the cache of pods cannot say: a pod that was made and is not in it yet, and a pod that is
 * gone. Without the first a stale cache would make a second pod; without the second a sandbox that
 * somebody deleted would never be announced.
 */
export class PodMemory {
  readonly #pods: Informer<Pod>;
  readonly #made = new Map<string, Pod>();
  readonly #vanished = new Map<string, Pod>();

  constructor(pods: Informer<Pod>) {
    this.#pods = pods;
  }

  readonly watch: Watch = () =>
    this.#pods.onChange(({ type, object }) => {
      const key = keyOfPod(object);
      if (key === undefined) return;
      const uid = uidOf(object);
      if (this.#made.get(key)?.metadata.uid === uid) this.#made.delete(key);
      if (type === "deleted") this.#vanished.set(key, object);
    });

  made(key: string, pod: Pod): void {
    const cached = this.#pods.byIndex("sandbox", key);
    if (!cached.some(({ metadata }) => metadata.uid === pod.metadata.uid)) this.#made.set(key, pod);
  }

  podOf(key: string): Pod | undefined {
    return this.#pods.byIndex("sandbox", key)[0] ?? this.#made.get(key);
  }

  vanishedOf(key: string): Pod | undefined {
    return this.#vanished.get(key);
  }

  /** We are about to delete it, or have dealt with its end. */
  forget(key: string): void {
    this.#made.delete(key);
    this.#vanished.delete(key);
  }
}
