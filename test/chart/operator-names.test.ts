import { describe, expect, it } from "@jest/globals";
import type { V1PodSpec } from "@kubernetes/client-node";
import { LABELS, PORTS } from "../../src/api/names.ts";
import { buildEdgeDeployment } from "../../src/operator/edge/resources.ts";
import { buildDeployment } from "../../src/operator/harness-pool/resources.ts";
import { anInstall } from "../builders/install.ts";
import { aPool } from "../builders/kinds.ts";
import {
  CHART,
  containersOf,
  find,
  NAMESPACE,
  podTemplates,
  type Rendered,
  render,
} from "./helm.ts";

/**
 * Names that the chart and the operator both write: the chart selects pods that the operator makes, by
 * labels and ports that must be theirs.
 */

const evaluation = ["-f", `${CHART}/ci/evaluation-values.yaml`];
const edge = { replicas: 1, inClusterServers: [], resources: { cpu: "1", memory: "1Gi" } };
const install = anInstall({ namespace: NAMESPACE, edge });
const harnessPod = buildDeployment({ name: "default", code: "0000" }, aPool().spec, install).spec
  .template;
const edgePod = buildEdgeDeployment(install, edge).spec.template;

type Labels = Record<string, string>;

interface Peer {
  namespaceSelector?: object;
  podSelector: { matchLabels: Labels };
}

interface Policy {
  spec: {
    podSelector: { matchLabels: Labels };
    policyTypes: string[];
    ingress: { from?: Peer[]; ports: { port: number }[] }[];
  };
}

const selects = (selector: Labels, labels: Labels) =>
  Object.entries(selector).every(([key, value]) => labels[key] === value);

/** Who may want to call: pods of the install namespace, and sandboxes elsewhere. */
function callers(objects: readonly Rendered[]): Record<string, { labels: Labels; here: boolean }> {
  const [operator] = podTemplates([find(objects, "Deployment", "drover-operator")]);
  return {
    operator: { labels: operator?.labels ?? {}, here: true },
    harness: { labels: harnessPod.metadata.labels, here: true },
    edge: { labels: edgePod.metadata.labels, here: true },
    sandbox: { labels: { [LABELS.sandbox]: "true" }, here: false },
    "a pod of a tenant": { labels: {}, here: false },
    "a tenant's pod that copies the harness' labels": {
      labels: harnessPod.metadata.labels,
      here: false,
    },
  };
}

/** Port by port, who is let in: the names of callers, or "anyone". */
function admitted(objects: readonly Rendered[], name: string): Record<number, unknown> {
  const { spec } = find(objects, "NetworkPolicy", name) as unknown as Policy;
  const who = ({ from }: Policy["spec"]["ingress"][0]) =>
    from === undefined
      ? "anyone"
      : Object.entries(callers(objects))
          .filter(([, { labels, here }]) =>
            from.some(
              ({ namespaceSelector, podSelector }) =>
                (here || namespaceSelector !== undefined) &&
                selects(podSelector.matchLabels, labels),
            ),
          )
          .map(([caller]) => caller);
  return Object.fromEntries(
    spec.ingress.flatMap((rule) => rule.ports.map(({ port }) => [port, who(rule)])),
  );
}

describe("the network policies", () => {
  it("let in whom each process serves, and nobody else", async () => {
    const objects = await render(evaluation);

    expect(admitted(objects, "drover-operator")).toEqual({
      [PORTS.issuer]: ["harness", "edge"],
      [PORTS.health]: "anyone",
    });
    expect(admitted(objects, "drover-harness")).toEqual({
      [PORTS.health]: "anyone",
      [PORTS.proxyHealth]: "anyone",
    });
    expect(admitted(objects, "drover-edge")).toEqual({
      [PORTS.edge]: ["sandbox"],
      [PORTS.proxyHealth]: "anyone",
    });
    expect(admitted(objects, "drover-valkey")).toEqual({ 6379: ["operator", "harness", "edge"] });
    expect(admitted(objects, "drover-scripted-model")).toEqual({ 8080: ["harness"] });
  });

  it("are about ingress only, and select the pods they are named for", async () => {
    const objects = await render(evaluation);
    const policies = objects.filter(({ kind }) => kind === "NetworkPolicy");

    for (const { spec } of policies as unknown as Policy[]) {
      expect(spec.policyTypes).toEqual(["Ingress"]);
    }
    const selectorOf = (name: string) =>
      (find(objects, "NetworkPolicy", name) as unknown as Policy).spec.podSelector.matchLabels;
    expect(selects(selectorOf("drover-edge"), edgePod.metadata.labels)).toBe(true);
    expect(selects(selectorOf("drover-edge"), harnessPod.metadata.labels)).toBe(false);
    expect(selects(selectorOf("drover-harness"), harnessPod.metadata.labels)).toBe(true);
    expect(selects(selectorOf("drover-harness"), edgePod.metadata.labels)).toBe(false);
  });
});

describe("the edge", () => {
  const portsOf = ({ containers }: V1PodSpec) =>
    containers.flatMap(({ ports = [] }) =>
      ports.map(({ name, containerPort }) => [name, containerPort]),
    );

  it("has the Service, account and disruption budget that its pods are made for", async () => {
    const objects = await render(evaluation);
    const { spec: service } = find(objects, "Service", "drover-edge") as unknown as {
      spec: { selector: Labels; ports: unknown };
    };
    const { spec: budget } = find(objects, "PodDisruptionBudget", "drover-edge") as unknown as {
      spec: { selector: { matchLabels: Labels } };
    };
    const account = find(objects, "ServiceAccount", edgePod.spec.serviceAccountName ?? "");

    expect(selects(service.selector, edgePod.metadata.labels)).toBe(true);
    expect(selects(budget.selector.matchLabels, edgePod.metadata.labels)).toBe(true);
    expect(service.ports).toEqual([{ name: "edge", port: PORTS.edge, targetPort: "edge" }]);
    expect(portsOf(edgePod.spec)).toEqual([
      ["edge", PORTS.edge],
      ["proxy-health", PORTS.proxyHealth],
    ]);
    expect(account["automountServiceAccountToken"]).toBe(false);
  });

  it("is off as a whole", async () => {
    const objects = await render([...evaluation, "--set", "edge.enabled=false"]);
    const names = objects.map(({ kind, metadata }) => `${kind}/${metadata.name}`);

    expect(names.filter((name) => name.endsWith("-edge"))).toEqual([]);
  });
});

it("the PodMonitors select pods of the operator's and name ports they have", async () => {
  const objects = await render(["-f", `${CHART}/ci/monitoring-values.yaml`]);
  for (const [name, { metadata, spec }] of [
    ["drover-harness", harnessPod],
    ["drover-edge", edgePod],
  ] as const) {
    const monitor = find(objects, "PodMonitor", name) as unknown as {
      spec: { selector: { matchLabels: Labels }; podMetricsEndpoints: { port: string }[] };
    };
    const ports = [...(spec.initContainers ?? []), ...spec.containers].flatMap(
      ({ ports: own = [] }) => own.map((port) => port.name),
    );

    expect(selects(monitor.spec.selector.matchLabels, metadata.labels)).toBe(true);
    expect(ports).toEqual(
      expect.arrayContaining(monitor.spec.podMetricsEndpoints.map(({ port }) => port)),
    );
  }
});

it("the operator's ports, probes and Service are those it listens on", async () => {
  const objects = await render(evaluation);
  const [operator] = podTemplates([find(objects, "Deployment", "drover-operator")]).flatMap(
    containersOf,
  );
  const { spec } = find(objects, "Service", "drover-operator") as unknown as {
    spec: { ports: unknown; selector: Labels };
  };

  expect(operator?.ports).toEqual([
    { name: "issuer", containerPort: PORTS.issuer },
    { name: "health", containerPort: PORTS.health },
  ]);
  expect(operator?.readinessProbe?.httpGet).toEqual({ path: "/readyz", port: "health" });
  expect(operator?.livenessProbe?.httpGet).toEqual({ path: "/livez", port: "health" });
  expect(operator?.startupProbe?.httpGet).toEqual({ path: "/livez", port: "health" });
  expect(spec.ports).toEqual([
    { name: "issuer", port: PORTS.issuer, targetPort: "issuer" },
    { name: "health", port: PORTS.health, targetPort: "health" },
  ]);
});
