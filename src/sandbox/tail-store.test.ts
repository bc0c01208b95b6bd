import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { TailStore } from "./tail-store.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-tails-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it("the end of what a call had printed is found by the next daemon, until it is forgotten", () => {
  new TailStore(folder).keep("toolu_a", Buffer.from("printed €"));
  new TailStore(folder).keep("toolu_cut", Buffer.from("€uro").subarray(1));

  const next = new TailStore(folder);
  expect(next.of("toolu_a")).toBe("printed €");
  expect(next.of("toolu_cut")).toBe("uro");
  expect(next.of("toolu_unknown")).toBe("");
  next.forget("toolu_a");
  expect(next.of("toolu_a")).toBe("");
});

it("a file that cannot be made costs nothing but itself", () => {
  writeFileSync(join(folder, "live"), "in the way");
  const tails = new TailStore(folder);

  tails.keep("toolu_a", Buffer.from("x"));

  expect(tails.of("toolu_a")).toBe("");
});
