import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { KIND_NAMES } from "../../src/api/kinds.ts";
import { parseManifests, validateManifest } from "../../src/local/manifest.ts";
import { hasCode } from "../../src/runtime/errors.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";

const folder = "deploy/examples/invalid";

const cases = readdirSync(folder).map((name) => {
  const text = readFileSync(join(folder, name), "utf8");
  return { name, text, expected: /^# expect: (.+)\n/.exec(text)?.[1] ?? "" };
});

/** What local mode says of the file, or nothing when it accepts it. */
function refuseLocally(text: string, file: string): string {
  try {
    for (const object of parseManifests(text, file)) validateManifest(object, file);
  } catch (error) {
    if (hasCode(error, "INPUT_INVALID")) return error.message;
    throw error;
  }
  return "";
}

let server: ApiServer;

beforeAll(async () => {
  server = await startApiServer();
  await server.kubectl(["apply", "-f", "crds"]);
  await server.kubectl(["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
}, 120_000);

afterAll(async () => {
  await server.stop();
});

describe("a manifest with one mistake is refused and says what is accepted", () => {
  it.each(cases)("$name", async ({ name, text, expected }) => {
    const { code, stderr } = await server.kubectl(["apply", "-f", join(folder, name)]);
    const local = refuseLocally(text, name);

    expect(expected).not.toBe("");
    expect(code).toBe(1);
    expect(stderr).toContain(expected);
    expect(local).toContain(expected);
    // One mistake each, and local mode says of it what the API server says.
    const [problem = "", ...others] = local.split("\n  ").slice(1);
    expect(others).toEqual([]);
    expect(stderr).toContain(problem);
  });
});

it("there are files for all kinds", () => {
  const kinds = new Set(cases.map(({ text }) => /^kind: (\w+)$/m.exec(text)?.[1]));

  expect(kinds).toEqual(new Set(KIND_NAMES));
});
