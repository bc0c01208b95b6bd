import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../../test/fakes/seeded-rng.ts";
import { secrets } from "../../kube/resources.ts";
import { ISSUER_SECRET, loadIssuerKeys } from "./key-store.ts";

const ref = { namespace: "drover-system", name: ISSUER_SECRET };

async function install(data?: Record<string, string>) {
  const client = new FakeKube();
  await client.create(secrets, {
    apiVersion: "v1",
    kind: "Secret",
    metadata: { ...ref },
    ...(data === undefined ? {} : { data }),
  });
  return client;
}

function replica(client: FakeKube, seed: number) {
  return {
    client,
    namespace: ref.namespace,
    secretName: ref.name,
    clock: new FakeClock(),
    rng: createSeededRng(seed),
  };
}

describe("loadIssuerKeys", () => {
  it("fills an empty Secret once and reads the same keys after a restart", async () => {
    const client = await install();

    const made = await loadIssuerKeys(replica(client, 1));
    const read = await loadIssuerKeys(replica(client, 2));

    expect(read).toEqual(made);
    expect(made.signing.privateJwk).toMatchObject({ kty: "OKP", crv: "Ed25519" });
    expect(made.signing.publicJwk).not.toHaveProperty("d");
    expect(new X509Certificate(made.tls.cert).subjectAltName).toBe("DNS:drover-issuer");
  });

  it("gives two replicas that start at once the same keys", async () => {
    const client = await install();

    const [a, b] = await Promise.all([
      loadIssuerKeys(replica(client, 1)),
      loadIssuerKeys(replica(client, 2)),
    ]);

    expect(a).toEqual(b);
  });

  it("says what to do when the Secret is missing", async () => {
    await expect(loadIssuerKeys(replica(new FakeKube(), 1))).rejects.toMatchObject({
      code: "CONFIG_INVALID",
      message: expect.stringContaining('secret "drover-issuer-key" in namespace "drover-system"'),
    });
  });

  it("does not overwrite a Secret that holds something else", async () => {
    const client = await install({ "tls.key": Buffer.from("mine").toString("base64") });

    await expect(loadIssuerKeys(replica(client, 1))).rejects.toMatchObject({
      code: "CONFIG_INVALID",
    });
    expect((await client.get(secrets, ref)).data).toEqual({
      "tls.key": Buffer.from("mine").toString("base64"),
    });
  });
});
