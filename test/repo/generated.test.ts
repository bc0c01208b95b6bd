import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { findDrift, renderOutputs, writeOutputs } from "../../src/cmd/generate/outputs.ts";

let outputs: Map<string, string>;

beforeAll(async () => {
  outputs = await renderOutputs(".");
});

it("what is generated is up to date; run npm run generate", () => {
  expect(findDrift(".", outputs)).toEqual({ differing: [], leftOver: [] });
});

describe("drift", () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "drover-generated-"));
    writeOutputs(root, outputs, findDrift(root, outputs));
  });

  afterEach(() => {
    rmSync(root, { recursive: true });
  });

  it("files that were just written do not differ", () => {
    expect(findDrift(root, outputs)).toEqual({ differing: [], leftOver: [] });
  });

  it("a file that was edited or deleted is named, and written again", () => {
    const edited = "crds/agents.drover.dev.yaml";
    writeFileSync(join(root, edited), "kind: Other\n");
    rmSync(join(root, "docs/kinds/agent.md"));

    const drift = findDrift(root, outputs);
    writeOutputs(root, outputs, drift);

    expect(drift.differing).toEqual([edited, "docs/kinds/agent.md"]);
    expect(readFileSync(join(root, edited), "utf8")).toBe(outputs.get(edited));
  });

  it("a file of a kind that is no more is named, and removed", () => {
    writeFileSync(join(root, "crds/others.drover.dev.yaml"), "kind: Other\n");

    const drift = findDrift(root, outputs);
    writeOutputs(root, outputs, drift);

    expect(drift.leftOver).toEqual(["crds/others.drover.dev.yaml"]);
    expect(findDrift(root, outputs).leftOver).toEqual([]);
  });
});
