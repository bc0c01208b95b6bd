import { readdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { aSandboxPod } from "../../builders/pods.ts";
import { NAMESPACE, RELEASE, render } from "../../chart/helm.ts";
import { type ApiServer, startApiServer } from "../../cluster/api-server.ts";
import { OPERATOR, ownWork, TENANT, thefts } from "../operator-requests.ts";

/**
 * T76: whoever takes the operator over has its account. With the chart's rights and the policies that
 * bind the account, a real API server admits what the operator builds and refuses the rest, in
 * namespaces where Pod Security refuses nothing.
 */

const HOME = "drover";

let api: ApiServer;

beforeAll(async () => {
  api = await startApiServer();
  for (const name of [HOME, TENANT]) {
    const labels = { "pod-security.kubernetes.io/enforce": "privileged" };
    await apply({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });
  }
  await rights();
  for (const file of (await readdir("crds")).filter((name) => name.endsWith(".yaml"))) {
    await kubectlOk(["apply", "--server-side", "-f", `crds/${file}`]);
  }
  // Alone: the policy of sandbox pods would refuse some of it first, in its own words.
  await kubectlOk(["apply", "-f", "deploy/admission/operator-policy.yaml"]);
  await inForce();
}, 180_000);

afterAll(async () => {
  await api?.stop();
});

/** The operator's roles as the chart has them, moved to namespace `drover`. */
async function rights(): Promise<void> {
  const objects = await render(["-f", "charts/drover/values-eval.yaml"]);
  const named = (name: string) => name.includes("operator");
  const rbac = objects.filter(
    ({ kind, metadata }) => /^ServiceAccount$|Role(Binding)?$/.test(kind) && named(metadata.name),
  );
  const text = JSON.stringify({ apiVersion: "v1", kind: "List", items: rbac });
  const moved = text.replaceAll(`"namespace":"${NAMESPACE}"`, `"namespace":"${HOME}"`);
  expect(RELEASE).toBe("drover");
  await kubectlOk(["apply", "-n", HOME, "-f", "-"], moved);
}

async function kubectlOk(args: readonly string[], stdin?: string): Promise<string> {
  const result = await api.kubectl(args, stdin);
  if (result.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

const apply = (object: object) => kubectlOk(["apply", "-f", "-"], JSON.stringify(object));

const AS = [
  ["--as", OPERATOR],
  ["--as-group", "system:serviceaccounts"],
  ["--as-group", `system:serviceaccounts:${HOME}`],
  ["--as-group", "system:authenticated"],
].flat();

async function asOperator(object: object) {
  return api.kubectl(["create", "--dry-run=server", ...AS, "-f", "-"], JSON.stringify(object));
}

/** A policy is compiled some time after it is stored. */
async function inForce(): Promise<void> {
  const last = thefts.filter(
    ({ resource }, i) => thefts.findIndex((t) => t.resource === resource) === i,
  );
  for (let attempt = 0; attempt < 60; attempt += 1) {
    const answers = await Promise.all(last.map(({ object }) => asOperator(object)));
    if (answers.every(({ code }) => code !== 0)) return;
    await sleep(500);
  }
  throw new Error("the policies never came into force");
}

describe("the operator's account", () => {
  it.each(ownWork)("makes $name", async ({ object }) => {
    const { code, stderr } = await asOperator(object);

    expect({ code, stderr: code === 0 ? "" : stderr }).toEqual({ code: 0, stderr: "" });
  });

  it.each(thefts)("does not make $name", async ({ object, message }) => {
    const { code, stderr } = await asOperator(object);

    expect(code).not.toBe(0);
    expect(stderr.replaceAll(/\s+/g, " ")).toContain(message);
  });

  it("deletes sandboxes, and no other pod", async () => {
    const sandbox = aSandboxPod();
    const metadata = { ...sandbox.metadata, namespace: TENANT };
    delete metadata.uid;
    delete metadata.creationTimestamp;
    const foreign = { name: "foreign", namespace: TENANT };
    await apply({ ...sandbox, metadata: { ...metadata, name: "sandbox" } });
    await apply({
      apiVersion: "v1",
      kind: "Pod",
      metadata: foreign,
      spec: { containers: [{ name: "x", image: "x" }] },
    });
    const remove = (name: string) => api.kubectl(["delete", "pod", name, "-n", TENANT, ...AS]);

    expect((await remove("foreign")).stderr).toContain("makes and deletes only pods");
    expect((await remove("sandbox")).code).toBe(0);
  });

  it("leaves what a session is to do to its owner", async () => {
    await apply({
      apiVersion: "drover.dev/v1alpha1",
      kind: "AgentSession",
      metadata: { name: "s", namespace: TENANT },
      spec: { agent: { model: "scripted:talk" }, messages: [{ text: "hi" }] },
    });
    const patch = (body: object) =>
      api.kubectl(
        `patch agentsession s -n ${TENANT} --type=merge -p`
          .split(" ")
          .concat(JSON.stringify(body), AS),
      );

    expect((await patch({ metadata: { finalizers: ["drover.dev/session"] } })).code).toBe(0);
    expect((await patch({ spec: { operatingMode: "Stopped" } })).stderr).toContain(
      "must not change the `spec`",
    );
    await kubectlOk(
      `patch agentsession s -n ${TENANT} --type=merge -p`
        .split(" ")
        .concat(JSON.stringify({ metadata: { finalizers: null } })),
    );
  });
});
