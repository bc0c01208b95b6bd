import { EDGE, FIELD_MANAGERS, LABELS, PORTS } from "../../api/names.ts";
import type { EdgeSettings, InstallSettings } from "../install-settings.ts";
import type { Deployment } from "../kinds.ts";
import { COMPONENTS, childLabels } from "../names.ts";
import {
  apiPart,
  containerParts,
  httpProbe,
  issuerPart,
  joined,
  type PodPart,
  podDefaults,
  podField,
  redisPart,
  scratch,
  variables,
  vaultPart,
  volumesOf,
} from "../pod-parts.ts";

/**
 * The edge (docs/architecture.md#processes, docs/design/security.md#the-proxies): the one thing
 * sandboxes reach. The chart makes its Service, service account and NetworkPolicy; the operator
 * makes the pods, because it pins the issuer's certificate in them, as in those of pools.
 */

const EDGE_UID = 10_004;
/** A push or a clone in flight may end; whoever is cut off is told by git and tries again. */
const GRACE_SECONDS = 60;

/** Selects the edge's pods: also in the chart's Service and policies, and in those of sandboxes. */
export const EDGE_PODS = {
  [LABELS.component]: COMPONENTS.edge,
  [LABELS.managedBy]: FIELD_MANAGERS.children,
};

export function buildEdgeDeployment(install: InstallSettings, edge: EdgeSettings): Deployment {
  const labels = childLabels(COMPONENTS.edge, EDGE);
  const part = edgePart(install, edge);
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: EDGE, namespace: install.namespace, labels },
    spec: {
      replicas: edge.replicas,
      selector: { matchLabels: EDGE_PODS },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: { labels },
        spec: {
          ...podDefaults(install, EDGE_PODS),
          serviceAccountName: EDGE,
          terminationGracePeriodSeconds: GRACE_SECONDS,
          containers: [edgeContainer(part, install, edge)],
          volumes: volumesOf(part),
        },
      },
    },
  };
}

function edgePart(install: InstallSettings, edge: EdgeSettings): PodPart {
  return joined(
    scratch("tmp"),
    redisPart(install, "edge"),
    issuerPart(install),
    apiPart(),
    podField("DROVER_POD_UID", "metadata.uid"),
    // It reads nothing as itself: the model key is for the proxies of pools.
    vaultPart(install.vault, false),
    variables({
      DROVER_EDGE_PORT: String(PORTS.edge),
      DROVER_PROXY_HEALTH_PORT: String(PORTS.proxyHealth),
      DROVER_IN_CLUSTER_SERVERS: edge.inClusterServers.join(","),
      DROVER_LOG_LEVEL: install.logLevel,
    }),
  );
}

function edgeContainer(part: PodPart, install: InstallSettings, { resources }: EdgeSettings) {
  const { proxyHealth } = PORTS;
  return {
    name: "edge",
    image: install.image,
    imagePullPolicy: install.imagePullPolicy,
    args: ["edge"],
    ports: [
      { name: "edge", containerPort: PORTS.edge, protocol: "TCP" },
      { name: "proxy-health", containerPort: proxyHealth, protocol: "TCP" },
    ],
    startupProbe: httpProbe("/livez", proxyHealth, { periodSeconds: 1, failureThreshold: 120 }),
    livenessProbe: httpProbe("/livez", proxyHealth, { periodSeconds: 10, failureThreshold: 6 }),
    readinessProbe: httpProbe("/readyz", proxyHealth, { periodSeconds: 2, failureThreshold: 3 }),
    resources: {
      requests: { cpu: resources.cpu, memory: resources.memory },
      limits: { memory: resources.memory },
    },
    ...containerParts(part, EDGE_UID),
  };
}
