import type { Clock } from "../runtime/clock.ts";
import { HeldCredential } from "./held-credential.ts";
import type { KnownValues } from "./known-values.ts";
import type { KnownSecret } from "./redaction.ts";

/**
 * The credentials of one session in this process. Whatever the session calls, all of them are looked
 * for in what comes back: two of its servers may be of one owner, or know of each other.
 */
export class HeldSession {
  readonly #clock: Clock;
  readonly #byValues = new Map<KnownValues, HeldCredential>();
  #lists: readonly (readonly KnownSecret[])[] = [];
  #known: readonly KnownSecret[] = [];

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
  }

  credential(values: KnownValues): HeldCredential {
    const known = this.#byValues.get(values);
    if (known !== undefined) return known;
    const credential = new HeldCredential({ clock: this.#clock, values });
    this.#byValues.set(values, credential);
    return credential;
  }

  /**
   * Asked again for every piece of an answer: a value may be read while another request still waits
   * for its answer. The same list until one of the credentials has a new value.
   */
  readonly known = (): readonly KnownSecret[] => {
    const lists = [...this.#byValues.keys()].map(({ known }) => known);
    const isSame =
      lists.length === this.#lists.length && lists.every((list, i) => list === this.#lists[i]);
    if (!isSame) {
      this.#lists = lists;
      this.#known = lists.flat();
    }
    return this.#known;
  };
}
