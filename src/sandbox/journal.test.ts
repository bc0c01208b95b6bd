import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { Journal } from "./journal.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "drover-journal-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const file = () => join(directory, "journal.jsonl");
const started = (id: string) => ({ t: "started" as const, id, name: "bash", inputHash: "h" });
const done = (id: string, content = "out") => ({
  t: "done" as const,
  id,
  name: "bash",
  inputHash: "h",
  result: { content, is_error: false, outcome: "known" as const },
});

it("what was appended is there after it is opened again", async () => {
  const first = await Journal.open(directory);
  await Promise.all([
    first.append(started("a")),
    first.append(done("a")),
    first.append(started("b")),
  ]);
  await first.close();

  const second = await Journal.open(directory);

  expect(second.state).toEqual(first.state);
  expect(second.damagedLines).toBe(0);
  await second.close();
});

it("a torn last line is cut off, so that the next record is readable", async () => {
  const first = await Journal.open(directory);
  await first.append(done("a"));
  await first.close();
  appendFileSync(file(), '{"t":"done","id":"b"');

  const second = await Journal.open(directory);
  await second.append(done("c"));
  await second.close();
  const third = await Journal.open(directory);

  expect([...third.state.calls.keys()]).toEqual(["a", "c"]);
  await third.close();
});

it("acknowledged results leave the file once it has grown", async () => {
  const journal = await Journal.open(directory);
  const content = "x".repeat(190_000);
  for (let i = 0; i < 50; i += 1) {
    await journal.append(done(`id-${i}`, content));
    await journal.append({ t: "acked", ids: [`id-${i}`] });
  }
  await journal.append(done("last"));
  await journal.close();

  expect(statSync(file()).size).toBeLessThan(4_000_000);
  const again = await Journal.open(directory);
  expect([...again.state.calls.keys()]).toEqual(["last"]);
  expect(again.state.acked.size).toBe(50);
  await again.close();
});

it("results nobody acknowledged survive the rewriting of the file", async () => {
  const journal = await Journal.open(directory);
  for (let i = 0; i < 50; i += 1) await journal.append(done(`id-${i}`, "x".repeat(190_000)));
  await journal.close();

  const again = await Journal.open(directory);

  expect(again.state.calls.size).toBe(50);
  await again.close();
});

it("the file is readable by its owner only", async () => {
  const journal = await Journal.open(directory);
  await journal.append(started("a"));
  await journal.close();

  expect(statSync(file()).mode & 0o777).toBe(0o600);
  expect(readFileSync(file(), "utf8")).toBe(`${JSON.stringify(started("a"))}\n`);
});
