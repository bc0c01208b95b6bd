import { createPublicKey } from "node:crypto";
import { describe, expect, it } from "@jest/globals";
import { FakeKube } from "../../../test/fakes/fake-kube.ts";
import { configMaps } from "../../kube/resources.ts";
import { generateSigningKey } from "../../protocol/tokens.ts";
import { ISSUER_KEYS, publishKeys } from "./published-keys.ts";

const at = { namespace: "drover", name: ISSUER_KEYS };
const empty = { apiVersion: "v1", kind: "ConfigMap", metadata: at };

describe("publishKeys", () => {
  it("writes every public key as PEM and as JWKS, and no private one", async () => {
    const client = new FakeKube();
    await client.create(configMaps, empty);
    const keys = [await generateSigningKey("key-1"), await generateSigningKey("key-2")];
    const jwks = { keys: keys.map(({ publicJwk }) => publicJwk) };

    await publishKeys({ client, namespace: "drover" }, jwks);
    await publishKeys({ client, namespace: "drover" }, jwks);

    const { data = {} } = await client.get(configMaps, at);
    const pems = data["keys.pem"]?.match(
      /-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----\n/g,
    );
    expect(JSON.parse(data["jwks.json"] ?? "")).toEqual(jwks);
    expect(pems?.map((pem) => createPublicKey(pem).export({ format: "jwk" }).x)).toEqual(
      keys.map(({ publicJwk }) => publicJwk.x),
    );
    expect(JSON.stringify(data)).not.toMatch(/PRIVATE|\\"d\\"/);
  });

  it("says that the ConfigMap is missing", async () => {
    const jwks = { keys: [(await generateSigningKey("key-1")).publicJwk] };

    await expect(
      publishKeys({ client: new FakeKube(), namespace: "drover" }, jwks),
    ).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining('config map "drover-issuer-keys" in namespace "drover"'),
    });
  });
});
