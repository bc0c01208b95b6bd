import { readFile } from "node:fs/promises";
import { Agent, request } from "node:https";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { EDGE, SANDBOX_SERVICE_ACCOUNT } from "../../../src/api/names.ts";
import { poolServiceAccount } from "../../../src/operator/names.ts";
import type { PolicyRule } from "../../../src/operator/rbac.ts";
import { NAMESPACE, render } from "../../chart/helm.ts";
import { GOLDEN, lines, rightsOf } from "../../chart/service-account-rights.ts";
import { type ApiServer, startApiServer } from "../../cluster/api-server.ts";

/**
 * T52: what a real API server lets each service account do once the chart's roles are there, against
 * the list. `test/chart/rbac.test.ts` reads the same list in the manifests; here the API server's own
 * authorizer answers, with all that it adds by itself.
 */

/** A namespace with sessions. */
const TENANT = "team-a";
const ELSEWHERE = "kube-system";

interface Account {
  namespace: string;
  name: string;
}

const operator = { namespace: NAMESPACE, name: "drover-operator" };
const cleanup = { namespace: NAMESPACE, name: "drover-cleanup" };
const pool = { namespace: NAMESPACE, name: poolServiceAccount("default") };
const edge = { namespace: NAMESPACE, name: EDGE };
const sandbox = { namespace: TENANT, name: SANDBOX_SERVICE_ACCOUNT };

/** What Kubernetes gives to everybody who is authenticated: to ask about oneself, and public keys. */
const EVERYBODY = lines(`
  authentication.k8s.io/selfsubjectreviews: create
  authorization.k8s.io/selfsubjectaccessreviews: create
  authorization.k8s.io/selfsubjectrulesreviews: create
  certificates.k8s.io/clustertrustbundles: get list watch
`);

const everywhere = {
  operator: lines(GOLDEN["operator, in every namespace"]),
  cleanup: lines(GOLDEN["uninstall hook, in every namespace"]),
};
const atHome = {
  operator: lines(GOLDEN["operator, in the install namespace"]),
  cleanup: lines(GOLDEN["uninstall hook, in the install namespace"]),
};

let api: ApiServer;
let agent: Agent;

beforeAll(async () => {
  api = await startApiServer();
  agent = new Agent({
    keepAlive: true,
    maxSockets: 8,
    ca: await readFile(api.caPath),
    cert: await readFile(api.adminCertPath),
    key: await readFile(api.adminKeyPath),
  });
  const objects = await render(["-f", "charts/drover/values-eval.yaml"]);
  const rbac = objects.filter(({ kind }) => /^ServiceAccount$|Role(Binding)?$/.test(kind));
  const namespaces = [NAMESPACE, TENANT].map((name) => ({
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name },
  }));
  const items = [...namespaces, ...rbac];
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
  const applied = await api.kubectl(["apply", "-n", NAMESPACE, "-f", "-"], list);
  if (applied.code !== 0) throw new Error(applied.stderr);
}, 120_000);

afterAll(async () => {
  agent?.destroy();
  await api?.stop();
});

async function post(path: string, body: unknown, headers: Record<string, string | string[]> = {}) {
  const text = await new Promise<string>((resolve, reject) => {
    const call = request(`${api.url}${path}`, { agent, method: "POST" }, (response) => {
      let answer = "";
      response.setEncoding("utf8").on("data", (part: string) => (answer += part));
      response.on("end", () => resolve(answer));
    });
    for (const [name, value] of Object.entries(headers)) call.setHeader(name, value);
    call.setHeader("content-type", "application/json");
    call.on("error", reject);
    call.end(JSON.stringify(body));
  });
  return JSON.parse(text) as { status: unknown };
}

function userOf({ namespace, name }: Account): string {
  return `system:serviceaccount:${namespace}:${name}`;
}

function groupsOf({ namespace }: Account): string[] {
  return ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"];
}

/** The account asks the API server what it may do in a namespace. */
async function effectiveRights(account: Account, namespace: string): Promise<string[]> {
  const review = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SelfSubjectRulesReview",
    spec: { namespace },
  };
  const answer = await post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review, {
    "Impersonate-User": userOf(account),
    "Impersonate-Group": groupsOf(account),
  });
  const status = answer.status as { incomplete: boolean; resourceRules: PolicyRule[] };
  expect(status.incomplete).toBe(false);
  return rightsOf(status.resourceRules);
}

const sorted = (...lists: (readonly string[])[]) =>
  lists.flat().toSorted((a, b) => (a < b ? -1 : 1));

describe("the API server says of each service account that it may do what the list says", () => {
  it.each([
    ["operator", operator, everywhere.operator, atHome.operator],
    ["uninstall hook", cleanup, everywhere.cleanup, atHome.cleanup],
    ["harness pool, with the proxy in its pods", pool, [], []],
    ["edge", edge, [], []],
    ["sandboxes", sandbox, [], []],
  ] as const)("%s", async (_, account, inEvery, inInstall) => {
    expect({
      [NAMESPACE]: await effectiveRights(account, NAMESPACE),
      [TENANT]: await effectiveRights(account, TENANT),
      [ELSEWHERE]: await effectiveRights(account, ELSEWHERE),
    }).toEqual({
      [NAMESPACE]: sorted(EVERYBODY, inEvery, inInstall),
      [TENANT]: sorted(EVERYBODY, inEvery),
      [ELSEWHERE]: sorted(EVERYBODY, inEvery),
    });
  });
});

/** What nobody of ours may do: to read or write a secret, enter a pod, become another, or gain rights. */
const SENSITIVE: readonly [group: string, resource: string, verbs: string][] = [
  ["", "secrets", "get list watch create update patch delete deletecollection"],
  ["", "pods/exec", "get create"],
  ["", "pods/attach", "get create"],
  ["", "pods/portforward", "get create"],
  ["", "pods/ephemeralcontainers", "get update patch"],
  ["", "pods/log", "get"],
  ["", "pods", "update patch"],
  ["", "serviceaccounts/token", "create"],
  ["", "nodes", "get list"],
  ["", "nodes/proxy", "get create"],
  ["", "configmaps", "get list create update patch"],
  ["", "users", "impersonate"],
  ["", "serviceaccounts", "impersonate"],
  ["rbac.authorization.k8s.io", "roles", "create update patch bind escalate"],
  ["rbac.authorization.k8s.io", "rolebindings", "create update patch"],
  ["rbac.authorization.k8s.io", "clusterroles", "create update patch bind escalate"],
  ["rbac.authorization.k8s.io", "clusterrolebindings", "create update patch"],
  ["admissionregistration.k8s.io", "validatingadmissionpolicies", "update patch delete"],
  ["admissionregistration.k8s.io", "validatingadmissionpolicybindings", "update patch delete"],
  ["certificates.k8s.io", "certificatesigningrequests", "create"],
];

/** Asked about one by one. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  secrets: ["any", "drover-issuer-key"],
  configmaps: ["any", "drover-issuer-keys"],
};

async function isAllowed(
  account: Account,
  attributes: {
    verb: string;
    group: string;
    resource: string;
    subresource?: string;
    namespace: string;
    name?: string;
  },
): Promise<boolean> {
  const answer = await post("/apis/authorization.k8s.io/v1/subjectaccessreviews", {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SubjectAccessReview",
    spec: { user: userOf(account), groups: groupsOf(account), resourceAttributes: attributes },
  });
  return (answer.status as { allowed: boolean }).allowed;
}

async function allowedOf(account: Account): Promise<string[]> {
  const questions = [NAMESPACE, TENANT, ELSEWHERE].flatMap((namespace) =>
    SENSITIVE.flatMap(([group, path, verbs]) =>
      verbs.split(" ").flatMap((verb) => {
        const [resource = "", subresource = ""] = path.split("/");
        const names = ["", ...(NAMES[path] ?? [])];
        return names.map((name) => ({ verb, group, resource, subresource, namespace, name }));
      }),
    ),
  );
  const answers = await Promise.all(questions.map(async (one) => await isAllowed(account, one)));
  return questions
    .filter((_, index) => answers[index] === true)
    .map(({ verb, resource, subresource, namespace, name }) =>
      [verb, [namespace, resource, subresource].filter(Boolean).join("/"), name].join(" ").trim(),
    );
}

describe("of what gives away secrets, processes or rights", () => {
  it("the operator may read and patch the issuer's Secret, and publish its public keys", async () => {
    expect(await allowedOf(operator)).toEqual([
      `get ${NAMESPACE}/secrets drover-issuer-key`,
      `patch ${NAMESPACE}/secrets drover-issuer-key`,
      `patch ${NAMESPACE}/configmaps drover-issuer-keys`,
    ]);
  });

  it.each([
    ["uninstall hook", cleanup],
    ["harness pool", pool],
    ["edge", edge],
    ["sandboxes", sandbox],
  ])("the %s may do nothing", async (_, account) => {
    expect(await allowedOf(account)).toEqual([]);
  });

  it("the question is asked well: an administrator of a namespace may do most of it there", async () => {
    const admin = { namespace: TENANT, name: "admin" };
    const account = `--serviceaccount=${TENANT}:admin`;
    const role = ["rolebinding", "admin", "--clusterrole=cluster-admin"];
    const bound = await api.kubectl(["create", "-n", TENANT, ...role, account]);

    expect(bound.code).toBe(0);
    expect(await allowedOf(admin)).toEqual(
      expect.arrayContaining([`list ${TENANT}/secrets`, `create ${TENANT}/pods/exec`]),
    );
  });
});
