import { type ChildProcess, spawn } from "node:child_process";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { eventually } from "../eventually.ts";
import { freePort } from "../servers/free-ports.ts";
import { conditionOf, OperatorRig } from "./operator-rig.ts";

/** The real process: its configuration, its issuer, its readiness, and a Redis that is not there. */

let api: ApiServer;
let rig: OperatorRig;
let child: ChildProcess | undefined;
let output = "";

beforeAll(async () => {
  api = await startApiServer();
  rig = new OperatorRig(api);
  await rig.install();
  await rig.apply({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "drover-issuer-key", namespace: "drover" },
  });
  await rig.apply({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: "drover-issuer-keys", namespace: "drover" },
  });
}, 120_000);

afterAll(async () => {
  child?.kill("SIGKILL");
  await rig?.close();
  await api?.stop();
});

it("stays up without Redis, is not ready, says so on the pool, and ends with 0 on SIGTERM", async () => {
  const [health, issuer, redis] = [await freePort(), await freePort(), await freePort()];
  child = spawn(process.execPath, ["src/cmd/operator.ts"], {
    env: {
      PATH: process.env["PATH"],
      DROVER_NAMESPACE: "drover",
      DROVER_POD_NAME: "operator-0",
      DROVER_IMAGE: "drover:dev",
      DROVER_REDIS_URL: `redis://127.0.0.1:${redis}`,
      DROVER_ISSUER_URL: `https://127.0.0.1:${issuer}`,
      DROVER_ISSUER_PORT: String(issuer),
      DROVER_HEALTH_PORT: String(health),
      DROVER_HOST: "127.0.0.1",
      DROVER_KUBECONFIG: api.kubeconfigPath,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exit = new Promise<number | null>((resolve) => child?.once("exit", resolve));
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => (output += text));
  }

  const pool = await eventually("the pool's condition", async () => {
    const found = await rig.pool();
    return conditionOf(found, "Ready")?.reason === "RedisUnreachable" && found;
  });
  const ready = await fetch(`http://127.0.0.1:${health}/readyz`);
  const text = await ready.text();
  const metrics = await (await fetch(`http://127.0.0.1:${health}/metrics`)).text();
  const published = await rig.kubectlOk([
    "get",
    "-n=drover",
    "configmap/drover-issuer-keys",
    "-o=jsonpath={.data.keys\\.pem}",
  ]);
  child.kill("SIGTERM");

  expect(conditionOf(pool, "Ready")?.message).toContain("cannot be reached");
  expect(ready.status).toBe(503);
  expect(text).toMatch(/\[ok\] informers/);
  expect(text).toContain("session store");
  expect(metrics).toContain('drover_sessions{state="Pending"} 0');
  expect(metrics).toContain('leader_election_master_status{name="drover-operator"} 1');
  expect(published).toContain("BEGIN PUBLIC KEY");
  expect(await exit).toBe(0);
  expect(output).not.toContain("pass failed");
}, 60_000);
