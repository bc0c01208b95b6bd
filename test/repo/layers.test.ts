import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, it } from "@jest/globals";

// Folders, or single files of a folder, that each layer may import besides itself. The table is
// docs/design/house-style.md#who-may-import-whom and a security statement: see CONTRIBUTING.
const allowed: Record<string, readonly string[]> = {
  runtime: [],
  api: [],
  protocol: ["api", "runtime"],
  kube: ["runtime"],
  sessions: ["protocol", "runtime"],
  credentials: ["kube", "protocol", "runtime"],
  operator: ["api", "kube", "sessions", "protocol", "runtime"],
  harness: ["api", "sessions", "protocol", "runtime"],
  sandbox: ["protocol", "runtime"],
  proxy: ["credentials", "protocol", "runtime"],
  gateway: ["api", "kube", "sessions", "protocol", "runtime", "credentials/credential-writer.ts"],
  "scripted-model": ["protocol", "runtime"],
  local: [
    "api",
    "kube",
    "sessions",
    "protocol",
    "runtime",
    "credentials",
    "operator",
    "harness",
    "sandbox",
    "proxy",
    "scripted-model",
  ],
  cli: ["api", "kube", "protocol", "runtime"],
  cmd: ["*"],
};

// Packages whose values may be imported in these places only; types may be imported anywhere.
const confined: { packages: RegExp; homes: readonly string[] }[] = [
  { packages: /^@kubernetes\/client-node$/, homes: ["kube/live-client.ts"] },
  { packages: /^ioredis$/, homes: ["sessions/", "cmd/"] },
  { packages: /^@anthropic-ai\/sdk/, homes: ["harness/anthropic-model.ts"] },
  { packages: /^@modelcontextprotocol\//, homes: ["proxy/", "harness/"] },
  { packages: /^fastify$/, homes: ["runtime/http.ts"] },
  { packages: /^undici$/, homes: ["proxy/", "credentials/", "harness/"] },
  { packages: /^pino$/, homes: ["runtime/logger.ts"] },
  { packages: /^prom-client$/, homes: ["runtime/metrics.ts"] },
];

const processHomes = ["cmd/", "runtime/process.ts"];

interface Import {
  from: string;
  typeOnly: boolean;
}

function importsOf(source: string): Import[] {
  const statements = source.matchAll(
    /^\s*(?:import|export)\s(type\s)?([^;]*?)\sfrom\s"([^"]+)"/gms,
  );
  const sideEffects = source.matchAll(/(?:^\s*import|import\()\s?"([^"]+)"/gm);
  return [
    ...[...statements].map((match) => ({
      from: match[3] ?? "",
      typeOnly: match[1] !== undefined || onlyTypes(match[2] ?? ""),
    })),
    ...[...sideEffects].map((match) => ({ from: match[1] ?? "", typeOnly: false })),
  ];
}

/** `{ type A, type B }` imports no value. */
function onlyTypes(clause: string): boolean {
  const names = /^\{([^}]*)\}$/s.exec(clause.trim())?.[1];
  if (names === undefined) return false;
  return names
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
    .every((name) => name.startsWith("type "));
}

function forbiddenImports(file: string, source: string): string[] {
  const layer = file.split("/")[0] ?? "";
  const rights = allowed[layer];
  if (rights === undefined) return [`src/${file}: "${layer}" is not a layer`];
  const isTest = file.endsWith(".test.ts"); // unit tests may use test/builders and test/fakes
  const problems: string[] = [];
  for (const { from, typeOnly } of importsOf(source)) {
    if (from.startsWith(".")) {
      const target = normalize(join(dirname(file), from));
      const folder = target.split("/")[0] ?? "";
      const free =
        folder === layer || rights.includes("*") || (isTest && target.startsWith("../test/"));
      if (!free && !rights.includes(target) && !rights.includes(folder)) {
        problems.push(`src/${file}: layer ${layer} must not import ${target}`);
      }
    } else if (!typeOnly && !isTest) {
      const rule = confined.find(({ packages }) => packages.test(from));
      if (rule && !rule.homes.some((home) => file.startsWith(home))) {
        problems.push(`src/${file}: "${from}" may be imported in ${rule.homes.join(", ")} only`);
      }
    }
  }
  if (/\bprocess\.(env|argv|exit)\b/.test(source) && !isTest) {
    if (!processHomes.some((home) => file.startsWith(home))) {
      problems.push(`src/${file}: process.env, argv and exit belong to ${processHomes.join(", ")}`);
    }
  }
  return problems;
}

const files = readdirSync("src", { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts"),
);

describe("layers", () => {
  it.each(files)("%s imports only what its layer may", (file) => {
    expect(forbiddenImports(file, readFileSync(join("src", file), "utf8"))).toEqual([]);
  });

  it("a forbidden import is named with file and folder", () => {
    expect(forbiddenImports("operator/x.ts", 'import { y } from "../credentials/y.ts";')).toEqual([
      "src/operator/x.ts: layer operator must not import credentials/y.ts",
    ]);
  });

  it("a confined package outside its home is named, its types are free", () => {
    expect(forbiddenImports("harness/x.ts", 'import { Redis } from "ioredis";')).toHaveLength(1);
    expect(forbiddenImports("harness/x.ts", 'import type { Redis } from "ioredis";')).toEqual([]);
    expect(forbiddenImports("harness/x.ts", 'import { type Redis } from "ioredis";')).toEqual([]);
  });

  it("the process environment outside its homes is named", () => {
    expect(forbiddenImports("harness/x.ts", "const a = process.env;")).toHaveLength(1);
  });
});
