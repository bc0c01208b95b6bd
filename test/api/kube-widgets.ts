import { setTimeout as sleep } from "node:timers/promises";
import type { KubeClient } from "../../src/kube/client.ts";
import { isNotFound } from "../../src/kube/errors.ts";
import { type AnyKind, customResourceDefinitions } from "../../src/kube/resources.ts";
import { widgets } from "../contracts/kube-client.ts";

/** The CRD of the contract's Widget. */
export function widgetDefinition(): AnyKind {
  const open = { type: "object", "x-kubernetes-preserve-unknown-fields": true };
  const schema = { openAPIV3Schema: { type: "object", properties: { spec: open, status: open } } };
  const version = {
    name: widgets.version,
    served: true,
    storage: true,
    schema,
    subresources: { status: {} },
  };
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: customResourceDefinitions.kind,
    metadata: { name: `${widgets.plural}.${widgets.group}` },
    spec: {
      group: widgets.group,
      scope: "Namespaced",
      names: { kind: widgets.kind, plural: widgets.plural, singular: "widget" },
      versions: [version],
    },
  };
}

/** A new CRD is served a moment after it is created. */
export async function untilServed(client: KubeClient): Promise<void> {
  for (let tries = 0; tries < 300; tries += 1) {
    try {
      await client.list(widgets);
      return;
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await sleep(100);
    }
  }
  throw new Error("the CRD is not served after 30 s");
}
