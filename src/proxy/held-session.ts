import { HeldCredential, type HeldCredentialOptions } from "./held-credential.ts";
import type { KnownSecret } from "./redaction.ts";

/**
 * The credentials of one session in this process. Whatever the session calls, all of them are looked
 * for in what comes back: two of its servers may be of one owner, or know of each other.
 */
export class HeldSession {
  readonly #byEntry = new Map<string, HeldCredential>();
  #lists: readonly (readonly KnownSecret[])[] = [];
  #known: readonly KnownSecret[] = [];

  credential(entry: string, options: HeldCredentialOptions): HeldCredential {
    const held = this.#byEntry.get(entry) ?? new HeldCredential(options);
    this.#byEntry.set(entry, held);
    return held;
  }

  /**
   * Asked again for every piece of an answer: a value may be read while another request still waits
   * for its answer. The same list until one of the credentials has a new value.
   */
  readonly known = (): readonly KnownSecret[] => {
    const lists = [...this.#byEntry.values()].map((held) => held.known);
    const isSame =
      lists.length === this.#lists.length && lists.every((list, i) => list === this.#lists[i]);
    if (!isSame) {
      this.#lists = lists;
      this.#known = lists.flat();
    }
    return this.#known;
  };
}
