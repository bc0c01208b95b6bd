import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { KIND_CONDITIONS, LOSS_REASONS } from "../../src/api/conditions.ts";
import { parseManifests, validateManifest } from "../../src/local/manifest.ts";
import { ERROR_CODES } from "../../src/runtime/errors.ts";

const skipped = new Set(["node_modules", "dist", ".git"]);

function filesBelow(folder: string, accept: (name: string) => boolean): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skipped.has(entry.name) ? [] : filesBelow(path, accept);
    return entry.isFile() && accept(entry.name) ? [path] : [];
  });
}

/** Text outside fenced blocks, in which paths are those of an example. */
function prose(markdown: string): string {
  return markdown.replaceAll(/^(```|~~~)[^]*?^\1/gm, "");
}

/** Anchors of headings, as GitHub makes them. */
function anchorsOf(markdown: string): string[] {
  return [...prose(markdown).matchAll(/^#+ (.+)$/gm)].map((match) =>
    (match[1] ?? "")
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, "")
      .replaceAll(/\s/g, "-"),
  );
}

function brokenLinks(file: string, markdown: string): string[] {
  const targets = [...prose(markdown).matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1] ?? "");
  return targets
    .filter((target) => !/^[a-z]+:/.test(target))
    .filter((target) => {
      const [path = "", anchor] = target.split("#");
      const destination = path === "" ? file : join(dirname(file), path);
      if (!existsSync(destination)) return true;
      if (anchor === undefined || !destination.endsWith(".md")) return false;
      const text = path === "" ? markdown : readFileSync(destination, "utf8");
      return !anchorsOf(text).includes(anchor);
    });
}

/** Paths of this repository in back-quotes; with `*`, `<` or `…` they are patterns and not checked. */
function missingPaths(markdown: string): string[] {
  const paths = prose(markdown).matchAll(
    /`((?:src|test|docs|deploy|charts|crds|[.]ci)\/[\w./-]*)`/g,
  );
  return [...paths].map((match) => match[1] ?? "").filter((path) => !existsSync(path));
}

function commentsOf(source: string): string {
  return source
    .split("\n")
    .filter((line) => /^\s*(\/?\*|\/\/|--|#)/.test(line))
    .join("\n");
}

/** Numbered sections that the comments cite: nobody can look them up here, unless they are of an RFC. */
function foreignCitations(source: string): string[] {
  const cited = commentsOf(source).matchAll(/(?<!RFC \d+ )§ ?[\d.]+|\bhouse style \d[\d.]*/gi);
  return [...cited].map(([citation]) => citation);
}

/** What the comments cite, a page of `docs/` or a heading of one, and is not there. */
function brokenCitations(source: string): string[] {
  return [...commentsOf(source).matchAll(/\bdocs\/[\w/-]+\.md(?:#[\w-]+)?/g)]
    .map(([citation]) => citation)
    .filter((citation) => {
      const [path = "", anchor] = citation.split("#");
      if (!existsSync(path)) return true;
      return anchor !== undefined && !anchorsOf(readFileSync(path, "utf8")).includes(anchor);
    });
}

const code = ["src", "test", "charts", "deploy", ".ci"].flatMap((folder) =>
  filesBelow(folder, (name) => /\.(ts|lua|sh|ya?ml|tpl|txt)$/.test(name)),
);

const documents = filesBelow(".", (name) => name.endsWith(".md"));
const sources = ["src", "test", "charts", "deploy", ".ci"]
  .flatMap((folder) => filesBelow(folder, () => true))
  .concat(["Makefile", "package.json", "Dockerfile", "Dockerfile.sandbox"].filter(existsSync))
  .map((path) => readFileSync(path, "utf8"))
  .join("\n");

describe("documents", () => {
  it.each(documents)("%s links to what exists and names paths that exist", (file) => {
    const markdown = readFileSync(file, "utf8");

    expect(brokenLinks(file, markdown)).toEqual([]);
    expect(missingPaths(markdown)).toEqual([]);
  });

  it.each(documents)("%s names variables that exist", (file) => {
    const names = readFileSync(file, "utf8").match(/\bDROVER_[A-Z0-9_]*[A-Z0-9]\b/g) ?? [];

    expect(names.filter((name) => !sources.includes(name.replace(/_FILE$/, "")))).toEqual([]);
  });

  it("every error code is documented, and none that does not exist", () => {
    const page = readFileSync("docs/reference/errors.md", "utf8");
    const documented = [...page.matchAll(/^\| `([A-Z_]+)` \|/gm)].map((match) => match[1]);

    expect(documented).toEqual(Object.keys(ERROR_CODES));
  });
});

describe("citations", () => {
  it("each page and heading that a comment cites is in this repository", () => {
    const broken = code.flatMap((file) =>
      brokenCitations(readFileSync(file, "utf8")).map((citation) => `${file}: ${citation}`),
    );

    expect(broken).toEqual([]);
  });

  it("no comment cites a section of a page that is not in this repository", () => {
    const foreign = code.flatMap((file) =>
      foreignCitations(readFileSync(file, "utf8")).map((citation) => `${file}: ${citation}`),
    );

    expect(foreign).toEqual([]);
  });
});

describe("guides", () => {
  const guides = documents.filter((file) => file.startsWith("docs/guides/"));

  it.each(guides)("manifests of our kinds in %s are accepted", (file) => {
    const blocks = readFileSync(file, "utf8").matchAll(
      /^```yaml\n(apiVersion: drover[.].*?)^```/gms,
    );
    const objects = [...blocks].flatMap(([, text = ""]) => parseManifests(text, file));

    expect(() => objects.map((object) => validateManifest(object, file))).not.toThrow();
  });

  it("an upgrade takes the new version's defaults: no page and no note keeps the old ones", () => {
    const files = [...documents, "charts/drover/templates/NOTES.txt"];

    const stale = files.filter((file) =>
      /helm upgrade.* --reuse-values/.test(readFileSync(file, "utf8")),
    );
    expect(stale).toEqual([]);
  });

  it("each reason that needs a person is in the page on troubleshooting", () => {
    const page = readFileSync("docs/guides/troubleshoot.md", "utf8");
    const stalled = Object.values(KIND_CONDITIONS).flatMap(({ Stalled = [] }) => Stalled);
    const wanted = new Set<string>([...stalled, ...LOSS_REASONS]);
    // Of a Stalled that is False.
    wanted.delete("Settled");

    expect([...wanted].filter((reason) => !page.includes(`\`${reason}\``))).toEqual([]);
  });
});

describe("the checks themselves", () => {
  it("a broken link, a wrong anchor and a missing path are found", () => {
    const text =
      "# A b\n[x](none.md) [y](#a-b) [z](#c) `src/none.ts` `src/cmd/generate.ts` `src/*.ts`";

    expect(brokenLinks("README.md", text)).toEqual(["none.md", "#c"]);
    expect(missingPaths(text)).toEqual(["src/none.ts"]);
  });

  it("a citation of a page or a heading that does not exist is found", () => {
    const text = "// docs/none.md docs/glossary.md#none docs/design/session-log.md#tool-calls";

    expect(brokenCitations(text)).toEqual(["docs/none.md", "docs/glossary.md#none"]);
  });

  it("a section of a page that is not here is found, that of an RFC is left alone", () => {
    expect(foreignCitations("// security §3, RFC 5280 §4.1 and house style 9.3")).toEqual([
      "§3",
      "house style 9.3",
    ]);
  });

  it("links and paths inside a fenced block are left alone", () => {
    expect(missingPaths("```\n`src/none.ts`\n```\n")).toEqual([]);
  });
});
