/**
 * Searches places for markers that must not be there. Each marker is looked for in all encodings
 * that the product's redaction knows, and in some that are computed here by other means, so that a
 * mistake there is not shared; texts also after `\u` escapes are undone, files also inflated, and git
 * repositories object by object.
 */
import { randomBytes } from "node:crypto";
import { type FileHandle, lstat, open, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { unzipSync } from "node:zlib";
import { Redis } from "ioredis";
import { encodedForms } from "../../src/proxy/redaction.ts";
import { run } from "./commands.ts";

export interface Finding {
  /** Where it was, such as `redis key drover:s:…` or a file's path. */
  place: string;
  marker: string;
  /** What was found: the marker or an encoded form of it. */
  form: string;
}

interface Range {
  from: number;
  to: number;
}

interface Needle {
  marker: string;
  form: string;
  bytes: Buffer;
}

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** `CNRY-T01-` and 32 random characters: unlike anything else, and the case that planted it shows. */
export function newMarker(name: string): string {
  const letters = [...randomBytes(32)].map((byte) => ALPHABET[byte % ALPHABET.length]);
  return `CNRY-${name}-${letters.join("")}`;
}

export class Sweeper {
  readonly findings: Finding[] = [];
  /** How much was searched: a sweep of nothing must not pass for a clean one. */
  bytes = 0;
  readonly #needles: readonly Needle[];
  /** By their first two bytes: one pass over a text looks for all of them. */
  readonly #byStart = new Map<number, Needle[]>();
  readonly #starts = new Uint8Array(1 << 16);

  constructor(markers: readonly string[]) {
    this.#needles = markers.flatMap((marker) =>
      [...new Set([...encodedForms(marker), ...ownForms(marker)])]
        .map((form) => ({ marker, form, bytes: Buffer.from(form) }))
        .concat({ marker, form: `${marker} (UTF-16)`, bytes: Buffer.from(marker, "utf16le") }),
    );
    for (const needle of this.#needles) {
      const start = needle.bytes.readUInt16LE(0);
      this.#starts[start] = 1;
      this.#byStart.set(start, [...(this.#byStart.get(start) ?? []), needle]);
    }
  }

  /** Logs, answers, requests that were recorded, transcripts. */
  text(place: string, text: string | Uint8Array): void {
    const bytes = Buffer.from(text);
    this.bytes += bytes.length;
    this.#look(place, bytes);
    const unescaped = withoutEscapes(bytes);
    if (unescaped !== undefined) this.#look(`${place} (unescaped)`, unescaped);
    const inflated = inflate(bytes);
    if (inflated !== undefined) this.#look(`${place} (inflated)`, inflated);
  }

  json(place: string, value: unknown): void {
    this.text(place, JSON.stringify(value) ?? "");
  }

  /** Names, link targets and contents of everything below a folder, git objects one by one. */
  async files(folder: string): Promise<void> {
    await this.#entry(folder);
  }

  /** Command line and environment of processes, as they were when each was started. */
  async processes(pids: Iterable<number>): Promise<void> {
    for (const pid of pids) {
      for (const name of ["cmdline", "environ"]) {
        const path = `/proc/${pid}/${name}`;
        this.text(path, await readFile(path));
      }
    }
  }

  /** All memory that processes can write, garbage that was not yet reused included. */
  async memory(pids: Iterable<number>): Promise<void> {
    for (const pid of pids) {
      const maps = await readFile(`/proc/${pid}/maps`, "utf8");
      const [memory, pages] = [await open(`/proc/${pid}/mem`), await open(`/proc/${pid}/pagemap`)];
      try {
        for (const [, from, to] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)) {
          const range = { from: Number(`0x${from}`), to: Number(`0x${to}`) };
          for (const part of await usedPages(pages, range)) await this.#memory(memory, pid, part);
        }
      } finally {
        await Promise.all([memory.close(), pages.close()]);
      }
    }
  }

  /**
   * Every key of every type as DUMP gives it, uncompressed, and, for a server of this machine, its
   * files: the append-only file also holds what was deleted.
   */
  async redis(url: string, options: { files?: boolean } = {}): Promise<void> {
    const client = new Redis(url);
    try {
      await client.config("SET", "rdbcompression", "no");
      const keys = await client.keys("*");
      for (const key of keys) {
        this.text("redis key names", key);
        this.text(`redis key ${key}`, (await client.dumpBuffer(key)) ?? "");
      }
      const [, folder] = await client.config("GET", "dir");
      if (options.files !== false && folder !== undefined) await this.files(folder);
    } finally {
      client.disconnect();
    }
  }

  async #memory(memory: FileHandle, pid: number, { from, to }: Range): Promise<void> {
    const chunk = Buffer.alloc(Math.min(to - from, 1 << 20));
    // Chunks overlap, so that nothing is missed at a border.
    const overlap = Math.max(...this.#needles.map(({ bytes }) => bytes.length));
    for (let at = from; at < to; at += Math.max(chunk.length - overlap, 1)) {
      const length = Math.min(chunk.length, to - at);
      const bytesRead = await memory.read(chunk, 0, length, at).then(
        (result) => result.bytesRead,
        () => 0, // pages that went away
      );
      this.bytes += bytesRead;
      this.#look(`memory of process ${pid}`, chunk.subarray(0, bytesRead));
      if (at + length === to) return;
    }
  }

  async #entry(path: string): Promise<void> {
    this.text("file names", path);
    const status = await lstat(path).catch(() => undefined);
    if (status === undefined) return; // gone meanwhile
    if (status.isSymbolicLink()) this.text(`link ${path}`, await readlink(path));
    else if (status.isFile()) this.text(path, await readFile(path));
    else if (status.isDirectory()) {
      const names = await readdir(path);
      for (const name of names) await this.#entry(join(path, name));
      if (names.includes("objects") && names.includes("HEAD")) await this.#gitObjects(path);
    }
  }

  async #gitObjects(repository: string): Promise<void> {
    const args = ["cat-file", "--batch-all-objects", "--batch", "--buffer", "--unordered"];
    const { stdout } = await run("git", [`--git-dir=${repository}`, ...args], {
      encoding: "buffer",
      maxBuffer: 1 << 30,
    });
    this.text(`git objects of ${repository}`, stdout);
  }

  #look(place: string, bytes: Buffer): void {
    const starts = this.#starts;
    let start = 0;
    for (let at = 0; at < bytes.length; at += 1) {
      start = (start >> 8) | ((bytes[at] ?? 0) << 8);
      if (starts[start] === 1 && at > 0) this.#compare(place, bytes, at - 1, start);
    }
  }

  #compare(place: string, bytes: Buffer, at: number, start: number): void {
    for (const { marker, form, bytes: needle } of this.#byStart.get(start) ?? []) {
      if (!bytes.subarray(at, at + needle.length).equals(needle)) continue;
      if (!this.findings.some((one) => one.place === place && one.form === form)) {
        this.findings.push({ place, marker, form });
      }
    }
  }
}

const PAGE = 4096;
const PAGE_ENTRY = 8;
/** In the last byte of an entry: the page is in memory, or swapped out. */
const IN_USE = 0b1100_0000;

/** The parts of a range that were ever written: most of what a process reserves never was. */
async function usedPages(pagemap: FileHandle, { from, to }: Range): Promise<Range[]> {
  const entries = Buffer.alloc(((to - from) / PAGE) * PAGE_ENTRY);
  await pagemap.read(entries, 0, entries.length, (from / PAGE) * PAGE_ENTRY);
  const runs: Range[] = [];
  for (let entry = 0; entry < entries.length; entry += PAGE_ENTRY) {
    if (((entries[entry + PAGE_ENTRY - 1] ?? 0) & IN_USE) === 0) continue;
    const page = from + (entry / PAGE_ENTRY) * PAGE;
    const last = runs.at(-1);
    if (last?.to === page) last.to += PAGE;
    else runs.push({ from: page, to: page + PAGE });
  }
  return runs;
}

/** Raw, URL-encoded, in JSON, hex and base64, made without the product's code: base64 by encoding longer and longer texts. */
function ownForms(marker: string): string[] {
  const codes = Array.from(marker, (letter) => letter.charCodeAt(0));
  const hex = codes.map((code) => code.toString(16).padStart(2, "0"));
  const base64 = ["", "x", "xy"].map((before) => {
    const whole = btoa(`${before}${marker}`);
    // What is left out mixes bits of the marker with those of its neighbours.
    const start = { 0: 0, 1: 2, 2: 3 }[before.length] ?? 0;
    return whole.replace(/=+$/, "").slice(start, -1);
  });
  const percent = encodeURIComponent(marker);
  const json = JSON.stringify(marker).slice(1, -1);
  const written = [percent, percent.replaceAll(/%../g, (code) => code.toLowerCase()), json];
  return [
    marker,
    ...written,
    json.replaceAll("/", "\\/"),
    hex.join(""),
    hex.join("").toUpperCase(),
    ...base64,
  ];
}

/** The text with the escapes of JSON undone that no search sees through; undefined without any. */
function withoutEscapes(bytes: Buffer): Buffer | undefined {
  if (!bytes.includes("\\u00")) return undefined;
  const text = bytes.toString("latin1");
  return Buffer.from(
    text.replaceAll(/\\+u00([0-9a-fA-F]{2})/g, (_, code: string) =>
      String.fromCharCode(Number.parseInt(code, 16)),
    ),
    "latin1",
  );
}

/** What a zlib or gzip stream at the beginning holds, such as a loose object of git. */
function inflate(bytes: Buffer): Buffer | undefined {
  if (bytes[0] !== 0x78 && !(bytes[0] === 0x1f && bytes[1] === 0x8b)) return undefined;
  try {
    return unzipSync(bytes);
  } catch {
    return undefined;
  }
}
