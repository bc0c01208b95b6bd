import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { DaemonFixture } from "../integration/sandbox-fixture.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T56: while the file tools work, a command exchanges a folder of their path, or the file, for a link
 * that leads out of the workspace, thousands of times a second.
 */

const secret = newMarker("T56");
const daemon = new DaemonFixture();
const outside = join(daemon.root, "outside");
let swapper: ChildProcess | undefined;

beforeAll(async () => {
  await daemon.start();
  mkdirSync(outside);
  writeFileSync(join(outside, "file.txt"), secret);
});

afterEach(async () => {
  const running = swapper;
  swapper = undefined;
  if (running === undefined) return;
  if (running.exitCode !== null) throw new Error("what exchanges the folders ended too early");
  const exited = once(running, "exit");
  running.kill("SIGKILL");
  await exited;
});

afterAll(() => daemon.remove());

/** Puts the link in the place of the real one and back, as fast as it can; removes what is in the way. */
async function swap(real: string, link: string): Promise<void> {
  const script = `
    const { renameSync, rmSync } = require("node:fs");
    const [real, link] = process.argv.slice(1);
    const move = (from, to) => {
      for (;;) try { return renameSync(from, to); } catch {
        try { rmSync(to, { recursive: true, force: true }); } catch {}
      }
    };
    process.stdout.write("ready");
    for (;;) {
      move(real, real + ".away"); move(link, real);
      move(real, link); move(real + ".away", real);
      // Half of the time it is the real one.
      for (const until = performance.now() + 0.2; performance.now() < until; );
    }`;
  const paths = [real, link].map((name) => join(daemon.workspace, name));
  swapper = spawn(process.execPath, ["-e", script, ...paths], { stdio: ["ignore", "pipe", 2] });
  if (swapper.stdout !== null) await once(swapper.stdout, "data");
}

/** A folder with a file of its own, exchanged for a link to the folder outside. */
async function swapFolder(name: string): Promise<string> {
  mkdirSync(join(daemon.workspace, name));
  writeFileSync(join(daemon.workspace, name, "file.txt"), "mine");
  symlinkSync(outside, join(daemon.workspace, `link-to-${name}`));
  await swap(name, `link-to-${name}`);
  return name;
}

async function results(count: number, name: string, input: (n: number) => Record<string, unknown>) {
  const seen: { content: string; is_error: boolean }[] = [];
  for (let n = 0; n < count; n += 1) seen.push(await daemon.call(name, input(n)));
  return seen;
}

function expectUntouched(): void {
  expect(readdirSync(outside)).toEqual(["file.txt"]);
  expect(readFileSync(join(outside, "file.txt"), "utf8")).toBe(secret);
}

describe("a folder of the path is exchanged for a link to a folder outside", () => {
  it("write and edit change nothing there", async () => {
    const folder = await swapFolder("written");

    const writes = await results(200, "write", (n) => ({
      file_path: `${folder}/new-${n}.txt`,
      content: "x",
    }));
    const edits = await results(60, "edit", () => ({
      file_path: `${folder}/file.txt`,
      old_string: secret.slice(0, 4),
      new_string: "taken",
    }));

    expect(writes.filter((result) => !result.is_error).length).toBeGreaterThan(0);
    expect(edits.filter((result) => !result.is_error)).toEqual([]);
    expectUntouched();
  }, 120_000);

  it("read and grep show nothing of it", async () => {
    const folder = await swapFolder("read");

    const reads = await results(200, "read", () => ({ file_path: `${folder}/file.txt` }));
    const greps = await results(20, "grep", () => ({ pattern: ".+", path: folder }));

    expect(reads.filter(({ content }) => content === "mine").length).toBeGreaterThan(0);
    expect([...reads, ...greps].filter(({ content }) => content.includes(secret))).toEqual([]);
  }, 120_000);
});

describe("the file is exchanged for a link to a file outside", () => {
  it("read and edit show and change nothing of it", async () => {
    writeFileSync(join(daemon.workspace, "plain.txt"), "mine");
    symlinkSync(join(outside, "file.txt"), join(daemon.workspace, "link-to-file"));
    await swap("plain.txt", "link-to-file");

    const reads = await results(200, "read", () => ({ file_path: "plain.txt" }));
    const edits = await results(60, "edit", () => ({
      file_path: "plain.txt",
      old_string: secret.slice(0, 4),
      new_string: "taken",
    }));

    expect(reads.filter(({ content }) => content === "mine").length).toBeGreaterThan(0);
    expect(reads.filter(({ content }) => content.includes(secret))).toEqual([]);
    expect(edits.filter((result) => !result.is_error)).toEqual([]);
    expectUntouched();
  }, 120_000);
});
