import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { openDataDirectory, uuidv5 } from "./data-directory.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-data-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const session = { kind: "AgentSession", namespace: "default", name: "hello" };

it("the same object has the same UID after the directory is opened again", async () => {
  const first = (await openDataDirectory(directory)).uidOf(session);

  const second = (await openDataDirectory(directory)).uidOf(session);

  expect(second).toBe(first);
});

it("a new incarnation has a new UID, also after the directory is opened again", async () => {
  const data = await openDataDirectory(directory);
  const before = data.uidOf(session);

  await data.nextIncarnation(session);

  expect(data.uidOf(session)).not.toBe(before);
  expect((await openDataDirectory(directory)).uidOf(session)).toBe(data.uidOf(session));
});

it("UUID version 5 of the DNS namespace and a name is the one of RFC 9562", () => {
  expect(uuidv5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "www.example.com")).toBe(
    "2ed6657d-e927-568b-95e1-2665a8aea6a2",
  );
});
