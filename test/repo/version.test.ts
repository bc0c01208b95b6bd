import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { expect, it } from "@jest/globals";
import { parse } from "yaml";
import { VERSION } from "../../src/runtime/version.ts";

/** One place says the version: package.json. The chart, which cannot read it, is held to it. */

it("the command line says the version of package.json", async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    "src/cmd/drover.ts",
    "--version",
  ]);

  expect(stdout.trim()).toBe(VERSION);
  expect(JSON.parse(readFileSync("package.json", "utf8"))).toMatchObject({ version: VERSION });
});

it("the chart installs the images of this version", () => {
  const chart = parse(readFileSync("charts/drover/Chart.yaml", "utf8")) as Record<string, unknown>;

  expect(chart).toMatchObject({ version: VERSION, appVersion: VERSION });
});

it("no source writes the version out, except as the tag of an example's image", () => {
  const sources = readdirSync("src", { recursive: true, encoding: "utf8" }).filter(
    (name) => name.endsWith(".ts") && !name.endsWith(".test.ts"),
  );
  const written = sources.filter((name) =>
    readFileSync(`src/${name}`, "utf8")
      .replaceAll(`drover-sandbox:${VERSION}`, "")
      .includes(VERSION),
  );

  expect(written).toEqual([]);
});

it("both images hold package.json where the compiled code looks for it", () => {
  expect(readFileSync("Dockerfile", "utf8")).toMatch(/^COPY package\.json LICENSE \.\/$/m);
  expect(readFileSync("Dockerfile.sandbox", "utf8")).toContain(
    "/app/package.json /opt/drover/daemon/package.json",
  );
});
