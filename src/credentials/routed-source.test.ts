import { expect, it } from "@jest/globals";
import { request } from "../../test/contracts/credential-source.ts";
import { Secret } from "../runtime/secret.ts";
import type { CredentialSource } from "./credential-source.ts";
import { KubernetesSecretSource } from "./kubernetes-secret/kubernetes-secret-source.ts";
import { RoutedSource } from "./routed-source.ts";

const inVault = request({ entry: { name: "docs", vaultRef: { path: "docs", key: "token" } } });
const answering = (version: string): CredentialSource => ({
  read: async () => ({ value: new Secret("CNRY-value"), version }),
});

it("reads each entry where its value is", async () => {
  const source = new RoutedSource({ secrets: answering("secret"), vault: answering("vault") });

  expect((await source.read(request())).version).toBe("secret");
  expect((await source.read(inVault)).version).toBe("vault");
});

it("without a vault, an entry that names one is refused with what to do, and no Secret is read", async () => {
  const secrets = new KubernetesSecretSource({
    secrets: {
      getSecret: async () => ({ resourceVersion: "1", data: { token: "Q05SWS12YWx1ZQ==" } }),
    },
  });
  const source = new RoutedSource({ secrets, vault: undefined });

  expect((await source.read(request())).value.reveal()).toBe("CNRY-value");
  await expect(source.read(inVault)).rejects.toMatchObject({
    code: "CREDENTIAL_UNAVAILABLE",
    message: expect.stringContaining("docs/guides/vault.md"),
  });
});
