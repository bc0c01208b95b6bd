import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import {
  apply,
  createNamespace,
  deleteNamespace,
  get,
  kubectl,
  list,
  RELEASE,
  SYSTEM,
  sandboxPods,
  stateDirectory,
  waitCompleted,
} from "./cluster.ts";
import { ensureInstalled, session, template } from "./installation.ts";

const NAMESPACE = "e2e-isolation";
// The bridge network of the test bed enforces no NetworkPolicy: DROVER_CLUSTER_CNI=cilium does.
const describeEnforced = networkOfTestBed() === "cilium" ? describe : describe.skip;

describeEnforced("on a network that enforces policies, a sandbox", () => {
  let sandbox = "";
  beforeAll(async () => {
    await ensureInstalled();
    await createNamespace(NAMESPACE);
    await apply(NAMESPACE, template, session("alone", "tolerant"), session("other", "tolerant"));
    await Promise.all([waitCompleted(NAMESPACE, "alone"), waitCompleted(NAMESPACE, "other")]);
    sandbox = await podOf("alone");
  }, 400_000);
  afterAll(async () => {
    await deleteNamespace(NAMESPACE);
  }, 120_000);

  it("reaches the edge", async () => {
    const { spec } = await get("service", SYSTEM, "drover-edge");
    expect(await dial(sandbox, String(spec["clusterIP"]), 7080)).toBe("connected");
  });

  it("reaches nothing else: not Redis, the API server, a harness, the edge's health port, another sandbox, the node, the metadata address", async () => {
    const redis = await get("service", SYSTEM, `${RELEASE}-valkey`);
    const api = await get("service", "default", "kubernetes");
    const [node] = await list("nodes", "default");
    const addresses = node?.status?.["addresses"] as { type: string; address: string }[];
    const nodeIp = addresses.find(({ type }) => type === "InternalIP")?.address ?? "";
    const other = await get("pod", NAMESPACE, await podOf("other"));
    const places: [string, string, number][] = [
      ["redis", String(redis.spec["clusterIP"]), 6379],
      ["api", String(api.spec["clusterIP"]), 443],
      ["harness", await podIp("harness"), 9090],
      ["edge health", await podIp("edge"), 9091],
      ["other sandbox", String(other.status?.["podIP"]), 7080],
      ["kubelet", nodeIp, 10_250],
      ["metadata", "169.254.169.254", 80],
    ];

    const reached: Record<string, string> = {};
    for (const [name, host, port] of places) reached[name] = await dial(sandbox, host, port);

    expect(new Set(Object.values(reached))).toEqual(new Set(["nothing"]));
  }, 90_000);
});

function networkOfTestBed(): string {
  try {
    return readFileSync(join(stateDirectory, "cni", "kind"), "utf8").trim();
  } catch {
    return "";
  }
}

async function podOf(name: string): Promise<string> {
  const pods = await sandboxPods(NAMESPACE);
  return pods.find(({ metadata }) => metadata.name.startsWith(`${name}-`))?.metadata.name ?? "";
}

async function podIp(component: string): Promise<string> {
  const [pod] = await list("pods", SYSTEM, `app.kubernetes.io/component=${component}`);
  return String(pod?.status?.["podIP"]);
}

/** What came of a connection from inside the pod. */
async function dial(pod: string, host: string, port: number): Promise<string> {
  const script = `
    const [host, port] = process.argv.slice(1);
    const end = (word) => { console.log(word); process.exit(); };
    require("node:net").connect({ host, port, timeout: 3000 })
      .on("connect", () => end("connected")).on("timeout", () => end("nothing")).on("error", () => end("nothing"));`;
  const args = ["exec", pod, "-n", NAMESPACE, "--", "node", "-e", script, host, String(port)];
  return (await kubectl(args)).trim();
}
