/**
 * Searches places for markers that must not be there. Each marker is looked for in all encodings
 * that the product's redaction knows, and in some that are computed here by other means, so that a
 * mistake there is not shared; texts also after `\u` escapes are undone, files also inflated, and git
 * repositories object by object.
 */
import { randomBytes } from "node:crypto";
import { lstat, open, readdir, readFile, readlink } from "node:fs/promises";
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
  readonly #needles: { marker: string; form: string; bytes: Buffer }[];

  constructor(markers: readonly string[]) {
    this.#needles = markers.flatMap((marker) =>
      [...new Set([...encodedForms(marker), ...ownForms(marker)])]
        .map((form) => ({ marker, form, bytes: Buffer.from(form) }))
        .concat({ marker, form: `${marker} (UTF-16)`, bytes: Buffer.from(marker, "utf16le") }),
    );
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
      const memory = await open(`/proc/${pid}/mem`);
      try {
        for (const line of maps.split("\n")) {
          const range = /^([0-9a-f]+)-([0-9a-f]+) rw/.exec(line);
          if (range === null) continue;
          await this.#range(memory, pid, Number(`0x${range[1]}`), Number(`0x${range[2]}`));
        }
      } finally {
        await memory.close();
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

  async #range(
    memory: Awaited<ReturnType<typeof open>>,
    pid: number,
    from: number,
    to: number,
  ): Promise<void> {
    const chunk = Buffer.alloc(1 << 20);
    // Chunks overlap, so that nothing is missed at a border.
    const overlap = Math.max(...this.#needles.map(({ bytes }) => bytes.length));
    for (let at = from; at < to; at += chunk.length - overlap) {
      const length = Math.min(chunk.length, to - at);
      const bytesRead = await memory.read(chunk, 0, length, at).then(
        (result) => result.bytesRead,
        () => 0, // guard pages and pages that went away
      );
      this.bytes += bytesRead;
      this.#look(`memory of process ${pid}`, chunk.subarray(0, bytesRead));
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
    for (const needle of this.#needles) {
      if (!bytes.includes(needle.bytes)) continue;
      const { marker, form } = needle;
      if (!this.findings.some((one) => one.place === place && one.form === form)) {
        this.findings.push({ place, marker, form });
      }
    }
  }
}

/** Raw, hex and base64, made without the product's code: base64 by encoding longer and longer texts. */
function ownForms(marker: string): string[] {
  const codes = Array.from(marker, (letter) => letter.charCodeAt(0));
  const hex = codes.map((code) => code.toString(16).padStart(2, "0"));
  const base64 = ["", "x", "xy"].map((before) => {
    const whole = btoa(`${before}${marker}`);
    // What is left out mixes bits of the marker with those of its neighbours.
    const start = { 0: 0, 1: 2, 2: 3 }[before.length] ?? 0;
    return whole.replace(/=+$/, "").slice(start, -1);
  });
  return [marker, hex.join(""), hex.join("").toUpperCase(), ...base64];
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
