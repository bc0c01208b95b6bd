import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { z } from "zod";
import type { Clock } from "../../../runtime/clock.ts";
import { AppError } from "../../../runtime/errors.ts";

/** Whose id it is: an id sealed for one owner does not open for another. */
export interface IdOwner {
  tenant: string;
  sessionId: string;
  server: string;
  /** What is named: the server's session, or an event of one of its streams. */
  what: "session" | "event";
}

const LIFE_MS = 24 * 3600 * 1000;
const MAX_ID_CHARS = 1024;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

const content = z.object({ id: z.string(), until: z.number() });

/**
 * A server's session and event ids as the harness sees them (docs/design/security.md#mcp): AES-GCM
 * under a random key of this process, bound to tenant, session and server. After a take-over by
 * another pod they do not open, which tells the client to begin a new server session.
 */
export class SealedIds {
  readonly #key = randomBytes(32);
  readonly #clock: Clock;

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
  }

  seal(owner: IdOwner, id: string): string {
    if (!/^[\x21-\x7e]+$/.test(id) || id.length > MAX_ID_CHARS) {
      throw new AppError("UPSTREAM_REFUSED", `the MCP server gave an odd ${owner.what} id`);
    }
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce);
    cipher.setAAD(ownerBytes(owner));
    const text = JSON.stringify({ id, until: this.#clock.now() + LIFE_MS });
    return Buffer.concat([
      nonce,
      cipher.update(text, "utf8"),
      cipher.final(),
      cipher.getAuthTag(),
    ]).toString("base64url");
  }

  /** Throws NOT_FOUND for what was not sealed here, for this owner, within a day. */
  open(owner: IdOwner, sealed: string): string {
    try {
      const bytes = Buffer.from(sealed, "base64url");
      const decipher = createDecipheriv("aes-256-gcm", this.#key, bytes.subarray(0, NONCE_BYTES), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(ownerBytes(owner));
      decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
      const text = Buffer.concat([
        decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)),
        decipher.final(),
      ]).toString("utf8");
      const { id, until } = content.parse(JSON.parse(text));
      if (this.#clock.now() <= until) return id;
    } catch {
      // Falls through: whatever is wrong with it, it names nothing here.
    }
    throw new AppError("NOT_FOUND", `there is no such MCP ${owner.what}; begin a new one`);
  }
}

function ownerBytes({ tenant, sessionId, server, what }: IdOwner): Buffer {
  return Buffer.from(JSON.stringify([tenant, sessionId, server, what]));
}
