import { readFileSync } from "node:fs";
import { celEnv, parse, plan } from "@bufbuild/cel";
import { expect, it } from "@jest/globals";
import { parse as parseYaml } from "yaml";

/**
 * T67: whoever may change an entry of a CredentialVault turns it to a host of their own, or to another
 * value. The rules of the CRD, evaluated here as the API server does for an entry of the same name;
 * `test/security/api/t67-vault-retarget.test.ts` shows it on a real one.
 */

interface Rule {
  rule: string;
  message: string;
}

const crd = parseYaml(readFileSync("crds/credentialvaults.drover.dev.yaml", "utf8"));
const { entries } = crd.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties;
const rules: Rule[] = entries.items["x-kubernetes-validations"];

const mcp = {
  name: "tracker",
  mcpServerUrl: "https://mcp.tracker.example/mcp",
  vaultRef: { path: "tracker", key: "token" },
};
const git = {
  name: "app",
  repositoryUrl: "https://git.example/team/app",
  secretRef: { name: "deploy", key: "token" },
};

function refusals(before: object, after: object): string[] {
  return rules
    .filter(({ rule }) => rule.includes("oldSelf"))
    .filter(({ rule }) => {
      const input = { self: after, oldSelf: before } as unknown as Record<string, string>;
      return plan(celEnv(), parse(rule))(input) !== true;
    })
    .map(({ message }) => message);
}

it("entries are told apart by their names, which are there once", () => {
  expect(entries["x-kubernetes-list-map-keys"]).toEqual(["name"]);
});

it.each([
  { name: "the server", before: mcp, change: { mcpServerUrl: "https://attacker.example/mcp" } },
  { name: "the path in the vault", before: mcp, change: { vaultRef: { path: "admin" } } },
  { name: "the key there", before: mcp, change: { vaultRef: { path: "tracker", key: "x" } } },
  {
    name: "the repository",
    before: git,
    change: { repositoryUrl: "https://attacker.example/a/b" },
  },
  { name: "the Secret", before: git, change: { secretRef: { name: "other", key: "token" } } },
  {
    name: "a Secret for a path",
    before: mcp,
    change: { vaultRef: undefined, secretRef: { name: "other", key: "token" } },
  },
  {
    name: "a server for a repository",
    before: git,
    change: { repositoryUrl: undefined, mcpServerUrl: "https://attacker.example/mcp" },
  },
])("an entry cannot be turned: $name", ({ before, change }) => {
  const after = JSON.parse(JSON.stringify({ ...before, ...change }));

  expect(refusals(before, after)).not.toEqual([]);
  expect(refusals(before, after)[0]).toContain("must not be changed; create a new entry");
});

it("how the value is sent may be changed, and nothing need be", () => {
  expect(refusals(mcp, { ...mcp, header: "X-Api-Key", scheme: "" })).toEqual([]);
  expect(refusals(git, git)).toEqual([]);
});
