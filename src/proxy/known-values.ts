import type { KnownSecret } from "./redaction.ts";

/**
 * How many are looked for, the newest first. Not by time: a stream that began with one of them may
 * last for hours.
 */
const MAX_VALUES = 16;

/**
 * The values that one credential had, for whichever session it was read, also those that were
 * replaced or refused: a server that was ever sent one may give it back in any answer.
 */
export class KnownValues {
  readonly #secretsOf: (value: string) => readonly KnownSecret[];
  #values: readonly string[] = [];
  #known: readonly KnownSecret[] = [];

  /** `secretsOf` says what to look for because of a value: itself, and what it is made of. */
  constructor(secretsOf: (value: string) => readonly KnownSecret[]) {
    this.#secretsOf = secretsOf;
  }

  /** The same list until there is a new value, so that it is made ready for the search only once. */
  get known(): readonly KnownSecret[] {
    return this.#known;
  }

  add(value: string): void {
    if (this.#values[0] === value) return;
    const before = this.#values.filter((other) => other !== value);
    this.#values = [value, ...before].slice(0, MAX_VALUES);
    this.#known = this.#values.flatMap((one) => this.#secretsOf(one));
  }
}
