/** Who the live client says it is: token files that are replaced, and configurations that are wrong. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { isUnauthorized, isUnavailable } from "../../src/kube/errors.ts";
import { type KubeConfigSource, LiveClient } from "../../src/kube/live-client.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { configMaps } from "../../src/kube/resources.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { codeOf } from "../../src/runtime/errors.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";

let directory = "";
let server: Server;
let accepted = "";
const seen: (string | undefined)[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-identity-"));
  server = createServer((request, response) => {
    const { authorization } = request.headers;
    seen.push(authorization);
    const ok = authorization === `Bearer ${accepted}`;
    response.writeHead(ok ? 200 : 401, { "content-type": "application/json" });
    const status = { kind: "Status", code: 401, reason: "Unauthorized", message: "Unauthorized" };
    response.end(JSON.stringify(ok ? { metadata: { resourceVersion: "1" }, items: [] } : status));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  await rm(directory, { recursive: true });
  await new Promise((resolve) => server.close(resolve));
});

function connect(config: KubeConfigSource): LiveClient {
  return new LiveClient({
    config,
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(new Registry()).restClient,
    logger: silentLogger,
  });
}

function kubeconfig(user: object, port = (server.address() as AddressInfo).port): string {
  const cluster = { server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true };
  return JSON.stringify({
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: "team-a" } }],
    "current-context": "x",
  });
}

describe("LiveClient's identity", () => {
  it("a token that was replaced is read again when the old one is refused", async () => {
    const tokenFile = join(directory, "token");
    await writeFile(tokenFile, "old");
    accepted = "old";
    // As client-node describes the token of a pod's service account.
    const provider = { name: "tokenFile", config: { tokenFile } };
    const text = kubeconfig({ "auth-provider": provider });
    const client = connect({ from: "text", text });
    await client.list(configMaps);
    await writeFile(tokenFile, "new");
    accepted = "new";
    seen.length = 0;

    await client.list(configMaps);
    client.close();

    expect(seen).toEqual(["Bearer old", "Bearer new"]);
  });

  it("a token that stays wrong is tried twice, and the error says so", async () => {
    accepted = "right";
    const client = connect({ from: "text", text: kubeconfig({ token: "wrong" }) });
    seen.length = 0;
    const error: unknown = await client.list(configMaps).catch((reason: unknown) => reason);
    client.close();

    expect(isUnauthorized(error)).toBe(true);
    expect(error).toMatchObject({ message: "list configmaps failed: Unauthorized" });
    expect(seen).toHaveLength(2);
  });

  it("nobody behind the address is an error that names the call", async () => {
    const client = connect({ from: "text", text: kubeconfig({}, 1) });
    const error: unknown = await client.list(configMaps).catch((reason: unknown) => reason);
    client.close();

    expect(isUnavailable(error)).toBe(true);
    expect(error).toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(/^list configmaps failed: .*ECONNREFUSED/),
    });
  });

  it("knows the context's namespace", () => {
    expect(connect({ from: "text", text: kubeconfig({}) }).defaultNamespace).toBe("team-a");
  });

  it.each([
    { name: "a file that is not there", config: { from: "file", path: "/nowhere/kubeconfig" } },
    { name: "a text that is no kubeconfig", config: { from: "text", text: "{}" } },
    { name: "no pod around it", config: { from: "in-cluster" } },
  ] as { name: string; config: KubeConfigSource }[])("$name is CONFIG_INVALID", ({ config }) => {
    let code: string | undefined;
    try {
      connect(config);
    } catch (error) {
      code = codeOf(error);
    }

    expect(code).toBe("CONFIG_INVALID");
  });

  it("a context that is not in the file is named", () => {
    const path = join(directory, "kubeconfig");
    const check = async () => {
      await writeFile(path, kubeconfig({}));
      return connect({ from: "file", path, context: "prod" });
    };

    return expect(check()).rejects.toThrow('kubeconfig context "prod" names no cluster');
  });
});
