import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import {
  createNamespace,
  deleteNamespace,
  get,
  kubectl,
  readLog,
  run,
  SYSTEM,
  sandboxPods,
  sessionIdOf,
  waitCompleted,
} from "./cluster.ts";
import { ensureInstalled } from "./installation.ts";

const NAMESPACE = "e2e-examples";

beforeAll(async () => {
  await ensureInstalled();
  await createNamespace(NAMESPACE);
}, 300_000);

afterAll(async () => {
  await deleteNamespace(NAMESPACE);
}, 120_000);

describe("the minimal example", () => {
  it("completes, and no sandbox exists before the first tool call", async () => {
    await kubectl(["apply", "-n", NAMESPACE, "-f", "deploy/examples/minimal.yaml"]);
    await waitCompleted(NAMESPACE, "hello");

    const log = await readLog(await sessionIdOf(NAMESPACE, "hello"));
    const at = (type: string) => log.find((entry) => entry.type === type)?.seq ?? Infinity;
    expect(at("model.request_start")).toBeLessThan(at("sandbox.requested"));
    expect(at("tool.intent")).toBeLessThan(at("sandbox.requested"));
    expect(at("sandbox.provisioned")).toBeLessThan(at("tool.result"));
  }, 150_000);

  it("left the right result in the workspace", async () => {
    const pod = (await sandboxPods(NAMESPACE))[0];

    const text = await kubectl([
      "exec",
      "-n",
      NAMESPACE,
      pod?.metadata.name ?? "",
      "--",
      "cat",
      "/workspace/hello.txt",
    ]);

    expect(text).toBe("hello from the sandbox\n");
  });

  it("its sandbox started without a Warning: the kubelet did not probe it before it listened", async () => {
    const name = (await sandboxPods(NAMESPACE))[0]?.metadata.name ?? "";

    const all = await kubectl(["events", "-n", NAMESPACE, "--for", `pod/${name}`]);
    expect(all).toContain("Started");
    expect(all).not.toMatch(/Warning\s+(Unhealthy|FailedPostStartHook)/);
  });

  it("its sandbox holds no secret: no token, no Secret, no credential in spec or environment", async () => {
    const pod = (await sandboxPods(NAMESPACE))[0];
    const name = pod?.metadata.name ?? "";

    const volumes = pod?.spec["volumes"] as Record<string, unknown>[];
    expect(volumes.every((volume) => "emptyDir" in volume)).toBe(true);
    expect(pod?.spec["automountServiceAccountToken"]).toBe(false);
    expect(JSON.stringify(pod?.spec)).not.toMatch(/secretKeyRef|secretRef|configMapKeyRef/);
    const env = await kubectl(["exec", "-n", NAMESPACE, name, "--", "env"]);
    expect(env).not.toMatch(/TOKEN|PASSWORD|API_KEY|REDIS|SECRET/i);
    const token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    const look = await run("kubectl", ["exec", "-n", NAMESPACE, name, "--", "ls", token]);
    expect(look.code).not.toBe(0);
  });

  it("kubectl get tells its state, kubectl events its story", async () => {
    const row = await kubectl(["get", "ags", "hello", "-n", NAMESPACE]);
    expect(row).toMatch(/Idle\s+True\s+Idle/);

    const events = await kubectl(["events", "-n", NAMESPACE, "--for", "ags/hello"]);
    expect(events).toContain("SandboxProvisioned");
  });
});

describe("the example on a real package", () => {
  it("plants a fault, repairs it and sees the package's own tests green", async () => {
    await kubectl(["apply", "-n", NAMESPACE, "-f", "deploy/examples/npm-package.yaml"]);
    await waitCompleted(NAMESPACE, "repair", 180);

    const log = await readLog(await sessionIdOf(NAMESPACE, "repair"));
    const results = log.filter((entry) => entry.type === "tool.result");
    expect(results.length).toBeGreaterThanOrEqual(4);
    expect(results.some((entry) => entry.data["is_error"] === true)).toBe(true);
    expect(results.at(-1)?.data["is_error"]).toBe(false);
    const session = await get("ags", NAMESPACE, "repair");
    expect(session.status?.["state"]).toBe("Idle");
  }, 240_000);
});

describe("manifests with a mistake", () => {
  const folder = "deploy/examples/invalid";
  const files = readdirSync(folder).filter((name) => name.endsWith(".yaml"));

  it.each(files)("%s is refused with the message its comment promises", async (name) => {
    const promised = /^# expect: (.+)$/m.exec(readFileSync(join(folder, name), "utf8"))?.[1];

    const result = await run("kubectl", ["apply", "-n", NAMESPACE, "-f", join(folder, name)]);

    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain(promised);
  });
});

describe("the control plane", () => {
  it("serves metrics of every process", async () => {
    const pods = JSON.parse(await kubectl(["get", "pods", "-n", SYSTEM, "-o", "json"])) as {
      items: { metadata: { name: string; labels: Record<string, string> } }[];
    };
    const ports: Record<string, [number, string][]> = {
      operator: [[9090, "controller_runtime_reconcile_total"]],
      harness: [
        [9090, "drover_harness_claims_total"],
        [9091, "drover_proxy_requests_total"],
      ],
    };
    for (const { metadata } of pods.items) {
      for (const [port, metric] of ports[metadata.labels["app.kubernetes.io/component"] ?? ""] ??
        []) {
        const path = `/api/v1/namespaces/${SYSTEM}/pods/${metadata.name}:${port}/proxy/metrics`;
        const text = await eventually(
          `metrics of ${metadata.name}`,
          () => kubectl(["get", "--raw", path]),
          { withinMs: 20_000 },
        );
        expect(text).toContain(metric);
        expect(text).toContain("drover_build_info");
      }
    }
  }, 60_000);
});
