import { readFile } from "node:fs/promises";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import type { KnownSecret } from "./redaction.ts";
import { PREVIOUS_MS } from "./session-credentials.ts";

/** A changed file is noticed within this time; revocation promises 5 s. */
const REREAD_MS = 1000;

export interface CurrentModelKey {
  key: Secret | undefined;
  /** What to look for in answers: the key and the one before it. */
  known: readonly KnownSecret[];
}

/**
 * The model API key, from a file that only this container mounts. Without a file configured, requests
 * carry no key; a configured file that is missing or empty fails them, so that nothing is ever sent
 * without the key it was meant to have.
 */
export class ModelKey {
  readonly #path: string | undefined;
  readonly #clock: Clock;
  #current: { key: Secret; readAt: number } | undefined;
  #previous: { key: Secret; until: number } | undefined;

  constructor({ path, clock }: { path: string | undefined; clock: Clock }) {
    this.#path = path;
    this.#clock = clock;
  }

  async read(): Promise<CurrentModelKey> {
    if (this.#path === undefined) return { key: undefined, known: [] };
    const now = this.#clock.monotonic();
    if (this.#current === undefined || now - this.#current.readAt > REREAD_MS) {
      this.#replace(await load(this.#path), now);
    }
    return { key: this.#current?.key, known: this.#known(now) };
  }

  #replace(value: string, now: number): void {
    const old = this.#current?.key;
    if (old !== undefined && old.reveal() !== value) {
      this.#previous = { key: old, until: now + PREVIOUS_MS };
    }
    this.#current = { key: new Secret(value), readAt: now };
  }

  #known(now: number): KnownSecret[] {
    const keys = [this.#current?.key];
    if (this.#previous !== undefined && now < this.#previous.until) keys.push(this.#previous.key);
    return keys
      .filter((key) => key !== undefined)
      .map((key) => ({ id: "model-key", value: key.reveal() }));
  }
}

async function load(path: string): Promise<string> {
  let text: string;
  try {
    text = (await readFile(path, "utf8")).trim();
  } catch (cause) {
    throw new AppError("CREDENTIAL_UNAVAILABLE", "the file with the model API key is missing", {
      cause,
      retryable: true,
    });
  }
  if (/^[\x21-\x7e]{8,}$/.test(text)) return text;
  throw new AppError(
    "CREDENTIAL_UNAVAILABLE",
    "the file with the model API key holds no key of at least 8 visible characters",
  );
}
