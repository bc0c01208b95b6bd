import { describe, expect, it } from "@jest/globals";
import { buildNetworkPolicy } from "./resources.ts";

const there = (component: string) => ({
  namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "drover" } },
  podSelector: {
    matchLabels: {
      "app.kubernetes.io/component": component,
      "app.kubernetes.io/managed-by": "drover-operator",
    },
  },
});
const install = { installNamespace: "drover", edge: true };

describe("the network policy of sandboxes", () => {
  it("lets in harness pods, and out to the edge, each at one port; nothing else", () => {
    expect(buildNetworkPolicy("team-a", install).spec).toEqual({
      podSelector: { matchLabels: { "drover.dev/sandbox": "true" } },
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [there("harness")], ports: [{ protocol: "TCP", port: 7080 }] }],
      egress: [{ to: [there("edge")], ports: [{ protocol: "TCP", port: 7080 }] }],
    });
  });

  it("without an edge denies all egress, by an absent list: an empty one is stored as none", () => {
    const { spec } = buildNetworkPolicy("team-a", { ...install, edge: false });

    expect(spec.policyTypes).toContain("Egress");
    expect(spec).not.toHaveProperty("egress");
  });
});
