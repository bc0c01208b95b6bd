import { describeKubeClient } from "../../test/contracts/kube-client.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { namespaces } from "./resources.ts";

describeKubeClient("FakeKube", async () => {
  const client = new FakeKube({ requireNamespaces: true });
  // As a server that has been up for a while: version 1 is long gone.
  client.seed(namespaces, {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: "default" },
  });
  client.compact();
  return { client, close: async () => {} };
});
