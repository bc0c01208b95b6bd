import { beforeAll, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  apply,
  createNamespace,
  deleteNamespace,
  helm,
  keysOf,
  kubectl,
  list,
  RELEASE,
  run,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
} from "./cluster.ts";
import { ensureInstalled, session, template } from "./installation.ts";

const NAMESPACE = "e2e-removal";

beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  await apply(NAMESPACE, template);
}, 300_000);

it("kubectl delete agentsession leaves no pod, policy or Redis key of that session", async () => {
  await apply(NAMESPACE, session("gone", "quick"));
  await waitCompleted(NAMESPACE, "gone");
  const id = await sessionIdOf(NAMESPACE, "gone");
  expect(await keysOf(id)).not.toEqual([]);
  expect(await sandboxPods(NAMESPACE)).toHaveLength(1);
  expect(await list("networkpolicies", NAMESPACE)).toHaveLength(1);

  await kubectl(["delete", "agentsession", "gone", "-n", NAMESPACE, "--timeout=60s"]);

  expect(await keysOf(id)).toEqual([]);
  await eventually("no pods", async () => (await sandboxPods(NAMESPACE)).length === 0, {
    withinMs: 60_000,
  });
  await eventually(
    "no policy",
    async () => (await list("networkpolicies", NAMESPACE)).length === 0,
    { withinMs: 30_000 },
  );
  const accounts = await list("serviceaccounts", NAMESPACE);
  expect(accounts.map((account) => account.metadata.name)).toEqual(["default"]);
}, 200_000);

it("a namespace deleted in the middle of a turn goes", async () => {
  const name = "e2e-removal-midturn";
  await createNamespace(name);
  await apply(name, template, session("midturn", "slow-command"));
  await eventually("a sandbox", async () => (await sandboxPods(name)).length > 0, {
    withinMs: 60_000,
  });

  await deleteNamespace(name);

  expect((await run("kubectl", ["get", "namespace", name])).code).not.toBe(0);
}, 200_000);

it("helm uninstall leaves nothing of ours but the CRDs, and one documented command removes those", async () => {
  await apply(NAMESPACE, session("kept", "slow-command"));
  await eventually("a sandbox", async () => (await sandboxPods(NAMESPACE)).length > 0, {
    withinMs: 60_000,
  });

  await helm(["uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "120s"]);

  const everything =
    "pods,deployments,statefulsets,services,serviceaccounts,configmaps,secrets,networkpolicies,poddisruptionbudgets,roles,rolebindings,jobs,leases.coordination.k8s.io";
  const selectors = ["app.kubernetes.io/part-of=drover"];
  for (const selector of selectors) {
    await eventually(
      "nothing of ours",
      async () => {
        const left = await kubectl(["get", everything, "-A", "-l", selector, "-o", "name"]);
        return left.trim() === "";
      },
      { withinMs: 60_000 },
    );
  }
  const wide =
    "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
  expect((await kubectl(["get", wide, "-l", selectors[0] ?? "", "-o", "name"])).trim()).toBe("");
  expect(await list("leases.coordination.k8s.io", SYSTEM)).toEqual([]);
  // The object is still there and is not stuck.
  expect((await list("agentsessions", NAMESPACE)).map((item) => item.metadata.name)).toEqual([
    "kept",
  ]);
  await kubectl(["delete", "ags", "kept", "-n", NAMESPACE, "--timeout=20s"]);

  await kubectl(["delete", "crd", "-l", "app.kubernetes.io/part-of=drover", "--timeout=60s"]);
  const crds = await kubectl(["get", "crd", "-o", "name"]);
  expect(crds).not.toContain("drover.dev");
  await deleteNamespace(NAMESPACE);
}, 300_000);

it("a new install after that works", async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
  await apply(NAMESPACE, template, session("again", "talk"));

  await waitCompleted(NAMESPACE, "again");

  // No tool, no pod.
  expect(await sandboxPods(NAMESPACE)).toEqual([]);
  await deleteNamespace(NAMESPACE);
}, 300_000);
