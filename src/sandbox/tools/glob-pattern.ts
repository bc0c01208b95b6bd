/**
 * Glob patterns: `*`, `?`, `[ab]`, `[!ab]`, `**` for any folders, `{a,b}`; a backslash makes the next
 * character plain. Names that begin with a dot are matched like others. Pure, and without regular
 * expressions: the time to match a name grows with its length, whatever the pattern.
 */

/** The part of a pattern between two slashes. */
export interface Segment {
  /** As it was written: a name that is the same matches too, so that `[id]` finds the folder `[id]`. */
  readonly text: string;
  /** True for `**`. */
  readonly any: boolean;
  /** Empty for `**`. */
  readonly parts: readonly Part[];
}

type Part =
  | { kind: "character"; value: string }
  | { kind: "one" }
  | { kind: "star" }
  | { kind: "set"; not: boolean; ranges: readonly (readonly [string, string])[] };

/** `{a,b}` may stand in a pattern so often that it means more patterns than anybody wants. */
const MAX_ALTERNATIVES = 256;
const MAX_PATTERN_CHARS = 4096;

/** One list of segments for each alternative; a string says what is wrong with the pattern. */
export function parseGlob(pattern: string): Segment[][] | string {
  if (pattern.length > MAX_PATTERN_CHARS)
    return `the pattern is longer than ${MAX_PATTERN_CHARS} characters`;
  if (pattern.startsWith("/")) {
    return "absolute pattern not permitted; pass a relative pattern (and optionally path)";
  }
  const alternatives = expandBraces(pattern);
  if (alternatives === undefined)
    return `the pattern has more than ${MAX_ALTERNATIVES} alternatives in braces`;
  const parsed = alternatives.map(parseAlternative);
  const ascends = parsed.some((segments) => segments.some(({ text }) => text === ".."));
  return ascends ? '".." is not permitted in the pattern' : parsed;
}

function parseAlternative(pattern: string): Segment[] {
  const texts = splitAt(pattern, "/").filter((text) => text !== "" && text !== ".");
  return texts.map((text) => ({
    text,
    any: text === "**",
    parts: text === "**" ? [] : parseSegment(text),
  }));
}

/** Undefined when there are too many. */
function expandBraces(pattern: string): string[] | undefined {
  const done: string[] = [];
  const open = [pattern];
  for (let text = open.pop(); text !== undefined; text = open.pop()) {
    const braces = firstBraces(text);
    if (braces === undefined) done.push(text);
    else {
      const [before, after] = [text.slice(0, braces.start), text.slice(braces.end + 1)];
      const inner = splitAt(text.slice(braces.start + 1, braces.end), ",");
      for (const choice of inner.toReversed()) open.push(`${before}${choice}${after}`);
    }
    if (done.length + open.length > MAX_ALTERNATIVES) return undefined;
  }
  return done;
}

/** The first braces with a comma in them; others are plain characters. */
function firstBraces(text: string): { start: number; end: number } | undefined {
  const starts: { at: number; comma: boolean }[] = [];
  let found: { start: number; end: number } | undefined;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\\") at += 1;
    else if (character === "{") starts.push({ at, comma: false });
    else if (character === "," && starts.length > 0)
      starts[starts.length - 1] = comma(starts.at(-1));
    else if (character === "}") {
      const start = starts.pop();
      if (start?.comma === true && (found === undefined || start.at < found.start)) {
        found = { start: start.at, end: at };
      }
    }
  }
  return found;
}

function comma(start: { at: number; comma: boolean } | undefined) {
  return { at: start?.at ?? 0, comma: true };
}

/** At each separator that no backslash precedes and no inner braces hold. */
function splitAt(text: string, separator: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let from = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === "\\") at += 1;
    else if (character === separator && depth === 0) {
      parts.push(text.slice(from, at));
      from = at + 1;
    } else if (separator === "," && character === "{") depth += 1;
    else if (separator === "," && character === "}") depth -= 1;
  }
  return [...parts, text.slice(from)];
}

function parseSegment(text: string): Part[] {
  const characters = Array.from(text);
  const parts: Part[] = [];
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] ?? "";
    const set = character === "[" ? parseSet(characters, at) : undefined;
    if (set !== undefined) {
      parts.push(set.part);
      at = set.end;
    } else if (character === "*") {
      if (parts.at(-1)?.kind !== "star") parts.push({ kind: "star" });
    } else if (character === "?") parts.push({ kind: "one" });
    else if (character === "\\" && at + 1 < characters.length) {
      at += 1;
      parts.push({ kind: "character", value: characters[at] ?? "" });
    } else parts.push({ kind: "character", value: character });
  }
  return parts;
}

/** Undefined when the bracket is never closed: then it is a plain character. */
function parseSet(
  characters: readonly string[],
  start: number,
): { part: Part; end: number } | undefined {
  let at = start + 1;
  const not = characters[at] === "!" || characters[at] === "^";
  if (not) at += 1;
  const members: string[] = [];
  for (const first = at; at < characters.length; at += 1) {
    const character = characters[at] ?? "";
    if (character === "]" && at > first) {
      return { part: { kind: "set", not, ranges: rangesOf(members) }, end: at };
    }
    if (character === "\\" && at + 1 < characters.length) at += 1;
    members.push(characters[at] ?? "");
  }
  return undefined;
}

function rangesOf(members: readonly string[]): [string, string][] {
  const ranges: [string, string][] = [];
  for (let at = 0; at < members.length; at += 1) {
    const low = members[at] ?? "";
    const high = members[at + 2];
    const isRange = members[at + 1] === "-" && high !== undefined;
    ranges.push([low, isRange ? high : low]);
    if (isRange) at += 2;
  }
  return ranges;
}

/** Whether a name, which has no slash, matches the segment. */
export function matchesSegment(segment: Segment, name: string): boolean {
  if (segment.any || segment.text === name) return true;
  const { parts } = segment;
  const characters = Array.from(name);
  let part = 0;
  let at = 0;
  // Where to go on when it does not fit: after the last star, one character further. An earlier star
  // need not be asked again: what it would take, the last one can take as well.
  let star: { part: number; at: number } | undefined;
  while (at < characters.length) {
    const wanted = parts[part];
    if (wanted?.kind === "star") {
      star = { part: part + 1, at };
      part += 1;
    } else if (wanted !== undefined && fits(wanted, characters[at] ?? "")) {
      part += 1;
      at += 1;
    } else if (star !== undefined) {
      star = { part: star.part, at: star.at + 1 };
      ({ part, at } = star);
    } else return false;
  }
  while (parts[part]?.kind === "star") part += 1;
  return part === parts.length;
}

function fits(part: Part, character: string): boolean {
  switch (part.kind) {
    case "character":
      return part.value === character;
    case "set": {
      const inside = part.ranges.some(([low, high]) => low <= character && character <= high);
      return inside !== part.not;
    }
    case "one":
    case "star":
      return true;
  }
}

/** True when the segment can match this name only: a name that somebody wrote out. */
export function isLiteral(segment: Segment): boolean {
  return !segment.any && segment.parts.every(({ kind }) => kind === "character");
}
