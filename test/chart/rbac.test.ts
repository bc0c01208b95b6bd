import { describe, expect, it } from "@jest/globals";
import {
  CLEANUP_CLUSTER_RULES,
  CLEANUP_NAMESPACE_RULES,
  OPERATOR_CLUSTER_RULES,
  operatorNamespaceRules,
  type PolicyRule,
} from "../../src/operator/rbac.ts";
import { CASES, find, NAMESPACE, RELEASE, type Rendered, render } from "./helm.ts";
import { GOLDEN, lines, rightsOf } from "./service-account-rights.ts";

const rulesOf = (object: Rendered) => object["rules"] as PolicyRule[];

interface Binding {
  roleRef: { kind: string; name: string };
  subjects: { kind: string; name: string; namespace?: string }[];
}

/** What the bindings of the chart give to one of its service accounts. */
function grantedTo(objects: readonly Rendered[], account: string, bindingKind: string): string[] {
  const granted = objects
    .filter(({ kind }) => kind === bindingKind)
    .map((object) => object as unknown as Binding)
    .filter(({ subjects }) => subjects.some(({ name }) => name === account))
    .flatMap(({ roleRef }) => rulesOf(find(objects, roleRef.kind, roleRef.name)));
  return rightsOf(granted);
}

describe.each(CASES.filter(({ name }) => !name.includes("production")))(
  "with $name",
  ({ values }) => {
    it("the service accounts may do what is listed here, and nothing else", async () => {
      const objects = await render(values);

      expect({
        "operator, in every namespace": grantedTo(objects, "drover-operator", "ClusterRoleBinding"),
        "operator, in the install namespace": grantedTo(objects, "drover-operator", "RoleBinding"),
        "uninstall hook, in every namespace": grantedTo(
          objects,
          "drover-cleanup",
          "ClusterRoleBinding",
        ),
        "uninstall hook, in the install namespace": grantedTo(
          objects,
          "drover-cleanup",
          "RoleBinding",
        ),
      }).toEqual(
        Object.fromEntries(Object.entries(GOLDEN).map(([name, text]) => [name, lines(text)])),
      );
      // So the edge's, and the default pool's, may do nothing until an app team grants it.
      const bindings = objects.filter(({ kind }) => kind.endsWith("RoleBinding"));
      expect(bindings).toHaveLength(4);
    });
  },
);

it("the list is the one the code keeps", () => {
  expect(rightsOf(OPERATOR_CLUSTER_RULES)).toEqual(lines(GOLDEN["operator, in every namespace"]));
  expect(rightsOf(operatorNamespaceRules("drover-issuer-key"))).toEqual(
    lines(GOLDEN["operator, in the install namespace"]),
  );
  expect(rightsOf(CLEANUP_CLUSTER_RULES)).toEqual(
    lines(GOLDEN["uninstall hook, in every namespace"]),
  );
  expect(rightsOf(CLEANUP_NAMESPACE_RULES)).toEqual(
    lines(GOLDEN["uninstall hook, in the install namespace"]),
  );
});

it("an issuer Secret of the user's is the only one the operator may read then", async () => {
  const objects = await render(["-f", "charts/drover/ci/production-values.yaml"]);

  expect(grantedTo(objects, "drover-operator", "RoleBinding")).toContain(
    "secrets [our-issuer-key]: get patch",
  );
});

it("no role of the chart reaches Secrets by list, another pod's shell, or other roles", async () => {
  for (const { values } of CASES) {
    const objects = await render(values);
    const rules = objects.filter(({ kind }) => /^(Cluster)?Role$/.test(kind)).flatMap(rulesOf);
    const resources = rules.flatMap((rule) => rule.resources);

    expect(resources.filter((resource) => /^pods\/|role|token$|impersonat/.test(resource))).toEqual(
      [],
    );
    expect(JSON.stringify(rules)).not.toContain("*");
    for (const rule of rules.filter((one) => one.resources.includes("secrets"))) {
      expect(rule.resourceNames).toHaveLength(1);
      expect(rule.verbs).toEqual(["get", "patch"]);
    }
  }
});

it("the right to write credential vaults is part of no role of the cluster: an administrator binds it", async () => {
  const objects = await render(["-f", "charts/drover/values-eval.yaml"]);
  const roles = objects.filter(
    (object) =>
      object.kind === "ClusterRole" &&
      rightsOf(rulesOf(object)).some((right) =>
        /credentialvaults:.*(create|patch|update)/.test(right),
      ),
  );

  expect(roles.map(({ metadata }) => metadata.name)).toEqual([
    `${RELEASE}-${NAMESPACE}-vault-editor`,
  ]);
  expect(Object.keys(roles[0]?.metadata.labels ?? {}).join()).not.toContain("aggregate-to");
});

it("the cluster's own roles gain our kinds: view, edit, admin", async () => {
  const objects = await render(["-f", "charts/drover/values-eval.yaml"]);
  const aggregated = objects
    .filter(({ kind }) => kind === "ClusterRole")
    .flatMap((object) => {
      const labels = Object.keys(object.metadata.labels ?? {});
      const target = labels.find((label) => label.includes("aggregate-to-"))?.split("-to-")[1];
      return target === undefined ? [] : [{ target, rights: rightsOf(rulesOf(object)) }];
    });

  expect(aggregated).toEqual([
    {
      target: "view",
      rights: [
        "agents",
        "agentsessions",
        "credentialvaults",
        "harnesspools",
        "sandboxtemplates",
      ].map((kind) => `drover.dev/${kind}: get list watch`),
    },
    {
      target: "edit",
      rights: ["agents", "agentsessions", "sandboxtemplates"].map(
        (kind) => `drover.dev/${kind}: create delete deletecollection patch update`,
      ),
    },
    {
      target: "admin",
      rights: [
        "drover.dev/harnesspools/scale: get patch update",
        "drover.dev/harnesspools: create delete deletecollection patch update",
      ],
    },
  ]);
});
