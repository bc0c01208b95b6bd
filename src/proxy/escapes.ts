/**
 * The ways in which ordinary encoders write one character of a text: percent-encoding, the escapes of
 * JSON, JavaScript, C and shells, HTML entities, quoted-printable, and these inside each other. Read
 * at one place of a text, without a regular expression: the text is foreign.
 */

/** There is no escape at that place. */
const NO_ESCAPE = -1;
/** The text ends inside what may be an escape. */
export const CUT_ESCAPE = -2;

/** Digits of a number in an entity; encoders may write zeros before it. */
const MAX_DIGITS = 8;

const PERCENT = 0x25;
const AMPERSAND = 0x26;
const PLUS = 0x2b;
const EQUALS = 0x3d;
const BACKSLASH = 0x5c;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const HASH = 0x23;
const SEMICOLON = 0x3b;
const CAPITAL_U = 0x55;
const SMALL_N = 0x6e;
const SMALL_R = 0x72;
const SMALL_U = 0x75;
const SMALL_X = 0x78;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Characters with which another reading may begin, by their code. */
export const BEGINS_ESCAPE = new Uint8Array(128);
for (const code of [PERCENT, AMPERSAND, PLUS, EQUALS, BACKSLASH]) BEGINS_ESCAPE[code] = 1;

/** A character read from an escape, with the place after it, as one number: no object for each. */
function reading(code: number, end: number): number {
  return code < 128 ? end * 128 + code : NO_ESCAPE;
}

export function codeOfEscape(escape: number): number {
  return escape % 128;
}

export function endOfEscape(escape: number): number {
  return Math.floor(escape / 128);
}

/** HTML's names of visible ASCII characters, and of the line break. */
const ENTITIES: ReadonlyMap<string, string> = new Map(
  Object.entries({
    AMP: "&",
    DiacriticalGrave: "`",
    GT: ">",
    Hat: "^",
    LT: "<",
    NewLine: "\n",
    QUOT: '"',
    UnderBar: "_",
    VerticalLine: "|",
    amp: "&",
    apos: "'",
    ast: "*",
    bsol: "\\",
    colon: ":",
    comma: ",",
    commat: "@",
    dollar: "$",
    equals: "=",
    excl: "!",
    grave: "`",
    gt: ">",
    lbrace: "{",
    lbrack: "[",
    lcub: "{",
    lowbar: "_",
    lpar: "(",
    lsqb: "[",
    lt: "<",
    midast: "*",
    nbsp: " ",
    num: "#",
    percnt: "%",
    period: ".",
    plus: "+",
    quest: "?",
    quot: '"',
    rbrace: "}",
    rbrack: "]",
    rcub: "}",
    rpar: ")",
    rsqb: "]",
    semi: ";",
    sol: "/",
    verbar: "|",
    vert: "|",
  }),
);
const LONGEST_NAME = Math.max(...[...ENTITIES.keys()].map((name) => name.length));

/**
 * The escape that the character `head` begins and that goes on at `at`. `head` may itself come from an
 * escape: `%2540` is `%40` is `@`.
 */
export function readEscape(text: string, head: number, at: number): number {
  if (at >= text.length) return head === PLUS ? reading(SPACE, at) : CUT_ESCAPE;
  switch (head) {
    case PLUS:
      return reading(SPACE, at);
    case PERCENT:
      // `%u002b` is what the `escape` of old browsers writes.
      return text.charCodeAt(at) === SMALL_U
        ? readDigits(text, at + 1, 4, 16)
        : readDigits(text, at, 2, 16);
    case EQUALS:
      return readQuoted(text, at);
    case BACKSLASH:
      return readBackslash(text, at);
    default:
      return readEntity(text, at);
  }
}

/** Quoted-printable: `=2B`, and `=` before a line break that is not part of the text. */
function readQuoted(text: string, at: number): number {
  const code = text.charCodeAt(at);
  if (code === LINE_FEED || code === CARRIAGE_RETURN) return reading(LINE_FEED, at + 1);
  return readDigits(text, at, 2, 16);
}

function readBackslash(text: string, at: number): number {
  const code = text.charCodeAt(at);
  switch (code) {
    case SMALL_U:
      return text.charCodeAt(at + 1) === OPEN_BRACE
        ? readNumber(text, at + 2, 16, CLOSE_BRACE)
        : readDigits(text, at + 1, 4, 16);
    case CAPITAL_U:
      return readDigits(text, at + 1, 8, 16);
    case SMALL_X:
      return readDigits(text, at + 1, 2, 16);
    case SMALL_N:
    case SMALL_R:
      return reading(LINE_FEED, at + 1);
    default:
      if (code >= 0x30 && code <= 0x33) return readDigits(text, at, 3, 8);
      return isAlphanumeric(code) ? NO_ESCAPE : reading(code, at + 1);
  }
}

function readEntity(text: string, at: number): number {
  if (text.charCodeAt(at) === HASH) {
    const isHex = (text.charCodeAt(at + 1) | 0x20) === SMALL_X;
    return isHex
      ? readNumber(text, at + 2, 16, SEMICOLON)
      : readNumber(text, at + 1, 10, SEMICOLON);
  }
  let end = at;
  while (end - at <= LONGEST_NAME && isAlphanumeric(text.charCodeAt(end))) end += 1;
  if (end === text.length && end - at <= LONGEST_NAME) return CUT_ESCAPE;
  if (end === at || text.charCodeAt(end) !== SEMICOLON) return NO_ESCAPE;
  const char = ENTITIES.get(text.slice(at, end));
  return char === undefined ? NO_ESCAPE : reading(char.charCodeAt(0), end + 1);
}

/** A number of up to eight digits, closed by `close`. */
function readNumber(text: string, at: number, base: number, close: number): number {
  let code = 0;
  let end = at;
  while (end - at < MAX_DIGITS) {
    const digit = digitAt(text, end, base);
    if (digit < 0) break;
    code = code * base + digit;
    end += 1;
  }
  if (end >= text.length) return CUT_ESCAPE;
  return end === at || text.charCodeAt(end) !== close ? NO_ESCAPE : reading(code, end + 1);
}

function readDigits(text: string, at: number, count: number, base: number): number {
  let code = 0;
  for (let end = at; end < at + count; end += 1) {
    if (end >= text.length) return CUT_ESCAPE;
    const digit = digitAt(text, end, base);
    if (digit < 0) return NO_ESCAPE;
    code = code * base + digit;
  }
  return reading(code, at + count);
}

/** -1 for what is no digit. */
function digitAt(text: string, at: number, base: number): number {
  const code = text.charCodeAt(at);
  let digit = -1;
  if (code >= 0x30 && code <= 0x39) digit = code - 0x30;
  else if (code >= 0x41 && code <= 0x46) digit = code - 0x37;
  else if (code >= 0x61 && code <= 0x66) digit = code - 0x57;
  return digit < base ? digit : -1;
}

function isAlphanumeric(code: number): boolean {
  if (code >= 0x61) return code <= 0x7a;
  return code >= 0x41 ? code <= 0x5a : code >= 0x30 && code <= 0x39;
}
