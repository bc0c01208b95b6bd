import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { EncryptedFile } from "../../../src/credentials/local-file/encrypted-file.ts";

/** `drover credentials …` as a person runs it: a process of its own, with a home of its own. */

const VALUE = "CNRY-local-credential";
const PLACE = ["default", "tracker-token", "token"];
let home: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "drover-local-credentials-"));
});
afterEach(async () => await rm(home, { recursive: true }));

async function credentials(args: string[], input = "") {
  const child = spawn(process.execPath, ["src/cmd/drover.ts", "credentials", ...args], {
    env: { HOME: home, PATH: process.env["PATH"] ?? "" },
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await ended, out, err };
}

function stored() {
  return new EncryptedFile({
    path: join(home, ".local/share/drover/credentials"),
    keyPath: join(home, ".config/drover/credentials.key"),
  }).read();
}

it("set keeps the value on standard input, list names its place, remove forgets it", async () => {
  expect(await credentials(["set", ...PLACE], `${VALUE}\n`)).toEqual({ code: 0, out: "", err: "" });
  await credentials(["set", "default", "tracker-token", "other"], "CNRY-another-value");

  const content = await stored();
  expect(content?.secrets).toEqual({
    default: { "tracker-token": { token: VALUE, other: "CNRY-another-value" } },
  });
  expect((await credentials(["list"])).out).toBe(
    "default tracker-token other\ndefault tracker-token token\n",
  );

  await credentials(["remove", ...PLACE]);
  expect((await credentials(["list"])).out).toBe("default tracker-token other\n");
});

it("no file below the home holds the value, and only its owner may read what there is", async () => {
  await credentials(["set", ...PLACE], VALUE);
  const found = await readdir(home, { recursive: true, withFileTypes: true });
  const files = found
    .filter((file) => file.isFile())
    .map(({ parentPath, name }) => join(parentPath, name));

  expect(files).toHaveLength(2);
  for (const file of files) {
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    expect(await readFile(file, "utf8")).not.toContain(VALUE);
  }
});

it.each([
  { what: "empty", input: "" },
  { what: "short", input: "CNRY" },
  { what: "of two lines", input: "CNRY-first-line\nCNRY-second-line" },
])("a value that is $what changes nothing and is not repeated", async ({ input }) => {
  await credentials(["set", ...PLACE], VALUE);

  const { code, out, err } = await credentials(["set", ...PLACE], input);

  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toContain("nothing was changed");
  expect(err).not.toContain("CNRY");
  expect((await stored())?.secrets["default"]?.["tracker-token"]).toEqual({ token: VALUE });
});

it("a value among the arguments is refused: they can be seen by others", async () => {
  const { code, err } = await credentials(["set", ...PLACE, VALUE], VALUE);

  expect(code).not.toBe(0);
  expect(err).toContain("too many arguments");
  expect(await stored()).toBeNull();
});

it("removing what is not there says so", async () => {
  const { code, err } = await credentials(["remove", ...PLACE]);

  expect(code).toBe(1);
  expect(err).toContain('there is no "token" of "tracker-token" in namespace "default"');
});
