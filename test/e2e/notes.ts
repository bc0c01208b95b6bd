import { readFileSync } from "node:fs";
import { apply, kubectl } from "./cluster.ts";
import { controlPlaneImage, NOTES } from "./installation.ts";

/** Starts `notes-server.ts` as Service `notes`, port 8080; it takes any of the tokens. */
export async function startNotesServer(
  namespace: string,
  tokens: readonly string[],
): Promise<void> {
  const labels = { app: "notes" };
  const container = {
    name: "notes",
    image: controlPlaneImage,
    imagePullPolicy: "IfNotPresent",
    command: ["node", "/app/notes-server.ts"],
    env: [{ name: "NOTES_TOKEN", valueFrom: { secretKeyRef: { name: "notes", key: "token" } } }],
    readinessProbe: { httpGet: { path: "/healthz", port: NOTES.port }, periodSeconds: 1 },
    // Beside /app/node_modules, where it finds what it imports.
    volumeMounts: [
      { name: "script", mountPath: "/app/notes-server.ts", subPath: "notes-server.ts" },
    ],
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
  };
  const pod = {
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    containers: [container],
    volumes: [{ name: "script", configMap: { name: "notes" } }],
  };
  const metadata = { name: "notes" };
  const script = readFileSync("test/e2e/notes-server.ts", "utf8");
  await apply(
    namespace,
    { apiVersion: "v1", kind: "Secret", metadata, stringData: { token: tokens.join(",") } },
    { apiVersion: "v1", kind: "ConfigMap", metadata, data: { "notes-server.ts": script } },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: { selector: labels, ports: [{ port: NOTES.port }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec: pod } },
    },
  );
  await kubectl(["rollout", "status", "deployment/notes", "-n", namespace, "--timeout=90s"]);
}

/** SHA-256 of the Authorization header of each tool call it got, oldest first. */
export async function seenByNotes(namespace: string): Promise<string[]> {
  const service = `/api/v1/namespaces/${namespace}/services/notes:${NOTES.port}`;
  return JSON.parse(await kubectl(["get", "--raw", `${service}/proxy/seen`])) as string[];
}
