import type { Json } from "./session-event.ts";

/**
 * JSON whose numbers keep their text. What a model, a server or a client writes may hold numbers that
 * JavaScript cannot (`1234567890123456789`, `10.0`, `1e400`), and an id with other digits names
 * another record. Such a number is kept as `JSON.rawJSON`, which `JSON.stringify` writes as it was read.
 */

declare global {
  // In Node since version 21, not yet in TypeScript's libraries.
  interface JSON {
    rawJSON(text: string): object;
    isRawJSON(value: unknown): boolean;
    parse(
      text: string,
      // oxlint-disable-next-line typescript/no-explicit-any
      reviver: (key: string, value: any, context: { source?: string }) => unknown,
      // oxlint-disable-next-line typescript/no-explicit-any
    ): any;
  }
}

/** Digits that may not survive as a number: many, or with a point, an exponent or a minus before 0. */
const SUSPECT = /\d{16}|\d[.eE]|-0/;

/** As JSON.parse, and throws as it does. The type is the caller's word, as with any JSON. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export function parseExact<T = Json>(text: string): T {
  return SUSPECT.test(text) ? JSON.parse(text, keepNumberText) : JSON.parse(text);
}

/** A reviver for JSON.parse. */
export function keepNumberText(_key: string, value: unknown, context: { source?: string }) {
  if (typeof value !== "number" || context.source === undefined) return value;
  return String(value) === context.source ? value : JSON.rawJSON(context.source);
}

/** A copy that shares nothing; members that are undefined are dropped. Throws for what is not JSON. */
export function copyExact<T>(value: T): T;
export function copyExact(value: unknown): unknown {
  return parseExact(JSON.stringify(value));
}

/** True for a number that is kept as its text: to other code it looks like an object. */
export function isNumberText(value: unknown): boolean {
  return JSON.isRawJSON(value);
}

/** The same with JavaScript's own numbers, for code that calculates with them. */
export function withPlainNumbers(value: unknown): unknown {
  const text = JSON.stringify(value);
  return text === undefined ? undefined : JSON.parse(text);
}
