import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";

/**
 * Every command block of README and docs is run by a test. This table says by which; a block that is
 * not in it fails here, so nobody adds commands that nothing runs.
 */
const RUN_BY: Record<string, string> = {
  "make api": ".ci/run",
  "make demo": ".ci/run",
  "make test": ".ci/run",
  "npm ci": ".ci/run",
  "npm run check": ".ci/run",
  "npm run security:sabotage": ".ci/run",
  "helm install drover": "test/e2e/readme.test.ts",
  "kubectl apply --namespace drover": "test/e2e/readme.test.ts",
  "kubectl wait --namespace drover": "test/e2e/readme.test.ts",
  "kubectl get --namespace drover": "test/e2e/readme.test.ts",
};

/** Guides of which a test runs every block, in their order. */
const RUN_WHOLE: Record<string, string> = {
  "docs/guides/redis-users.md": "test/integration/sessions/redis-users-guide.test.ts",
  "docs/guides/vault.md": "test/integration/credentials/vault-guide.test.ts",
};

const documents = [
  "README.md",
  "CONTRIBUTING.md",
  ...readdirSync("docs", { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name)),
];

function commands(text: string): string[] {
  return [...text.matchAll(/^```(?:sh|bash|shell|console)\n(.*?)^```/gms)].flatMap((match) =>
    (match[1] ?? "").split("\n").filter((line) => line !== "" && !line.startsWith("#")),
  );
}

it.each(documents.filter((name) => !(name in RUN_WHOLE)))(
  "each command of %s is run by a test",
  (document) => {
    const unknown = commands(readFileSync(document, "utf8")).filter(
      (line) => !Object.keys(RUN_BY).some((start) => line.startsWith(start)),
    );

    expect(unknown).toEqual([]);
  },
);

it("the tests that are said to run the commands name them", () => {
  for (const [guide, file] of Object.entries(RUN_WHOLE)) {
    expect({ guide, named: readFileSync(file, "utf8").includes(guide) }).toEqual({
      guide,
      named: true,
    });
  }
  for (const [start, file] of Object.entries(RUN_BY)) {
    const text = readFileSync(file, "utf8");
    const named = text.includes(start) || text.includes("README.md");
    expect({ start, file, named }).toEqual({ start, file, named: true });
  }
});
