import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import {
  credentialSourceContract,
  request,
  type SourceRig,
} from "../../../test/contracts/credential-source.ts";
import { KubernetesSecretSource } from "./kubernetes-secret-source.ts";
import { SecretClient } from "./secret-client.ts";

/** The one route of the Kubernetes API that is used; counts what it is asked. */
class SecretServer {
  readonly secrets = new Map<string, { resourceVersion: string; data: Record<string, string> }>();
  readonly asked: { method: string; url: string; authorization: string | undefined }[] = [];
  /** Answer this instead. */
  instead: { status: number; body: string } | undefined;
  readonly #http: Server;
  #version = 100;

  constructor() {
    this.#http = createServer((incoming, outgoing) => {
      const { method = "", url = "", headers } = incoming;
      this.asked.push({ method, url, authorization: headers.authorization });
      const found = this.secrets.get(url);
      const status = this.instead?.status ?? (found === undefined ? 404 : 200);
      const body =
        this.instead?.body ??
        JSON.stringify({
          kind: found === undefined ? "Status" : "Secret",
          metadata: { resourceVersion: found?.resourceVersion },
          data: found?.data,
        });
      outgoing.writeHead(status, { "content-type": "application/json" }).end(body);
    });
  }

  put(namespace: string, name: string, data: Record<string, string>): void {
    this.#version += 1;
    this.secrets.set(pathOf(namespace, name), { resourceVersion: String(this.#version), data });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#http.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }
}

function pathOf(namespace: string, name: string): string {
  return `/api/v1/namespaces/${namespace}/secrets/${name}`;
}

async function createServerFixture() {
  const server = new SecretServer();
  const directory = await mkdtemp(join(tmpdir(), "drover-token-"));
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, "pool-token\n");
  const client = new SecretClient({ server: await server.listen(), tokenFile, ca: "" });
  return {
    server,
    tokenFile,
    source: new KubernetesSecretSource({ secrets: client }),
    close: async () => {
      await client.close();
      await server.close();
      await rm(directory, { recursive: true });
    },
  };
}

credentialSourceContract("KubernetesSecretSource", async (): Promise<SourceRig> => {
  const { server, source, close } = await createServerFixture();
  return {
    source,
    async put(tenant, name, key, value) {
      server.put(tenant, name, { [key]: Buffer.from(value).toString("base64") });
    },
    async remove(tenant, name) {
      server.secrets.delete(pathOf(tenant, name));
    },
    async breakDown() {
      server.instead = { status: 403, body: "{}" };
    },
    close,
  };
});

describe("KubernetesSecretSource", () => {
  let fixture: Awaited<ReturnType<typeof createServerFixture>> | undefined;
  afterEach(async () => {
    await fixture?.close();
  });

  it("makes exactly one get by name with the token the kubelet last wrote", async () => {
    fixture = await createServerFixture();
    const { server, source, tokenFile } = fixture;
    server.put("team-a", "docs-token", { token: Buffer.from("CNRY-value").toString("base64") });
    await source.read(request());
    await writeFile(tokenFile, "renewed-token");
    await source.read(request());

    expect(server.asked).toEqual([
      { method: "GET", url: pathOf("team-a", "docs-token"), authorization: "Bearer pool-token" },
      { method: "GET", url: pathOf("team-a", "docs-token"), authorization: "Bearer renewed-token" },
    ]);
  });

  it("cannot be led out of the session's namespace by a name", async () => {
    fixture = await createServerFixture();
    const { server, source } = fixture;
    const entry = { name: "docs", secretRef: { name: "../../team-b/secrets/x", key: "token" } };

    await expect(source.read(request({ entry }))).rejects.toMatchObject({
      code: "CREDENTIAL_NOT_FOUND",
    });
    expect(server.asked[0]?.url).toBe(
      "/api/v1/namespaces/team-a/secrets/..%2F..%2Fteam-b%2Fsecrets%2Fx",
    );
  });

  it.each([
    { status: 403, retryable: false, says: /Role \(resourceNames\)/ },
    { status: 401, retryable: false, says: /may not get it/ },
    { status: 500, retryable: true, says: /answered 500/ },
    { status: 429, retryable: true, says: /answered 429/ },
    { status: 200, retryable: false, says: /something else/ },
  ])("says what to do when the API answers $status", async ({ status, retryable, says }) => {
    fixture = await createServerFixture();
    fixture.server.instead = { status, body: "<html>CNRY</html>" };

    await expect(fixture.source.read(request())).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable,
      message: expect.stringMatching(says),
    });
  });

  it("says the API does not answer when it is gone, and may be asked again", async () => {
    fixture = await createServerFixture();
    await fixture.server.close();

    await expect(fixture.source.read(request())).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable: true,
    });
  });
});
