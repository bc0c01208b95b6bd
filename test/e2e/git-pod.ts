import { readFileSync } from "node:fs";
import { apply, kubectl } from "./cluster.ts";
import { GIT, sandboxImage } from "./installation.ts";

/** `test/servers/git-host.ts` in a pod: real git behind one token, and a port on which a test asks. */
export interface GitPod {
  /** What it was sent, oldest first. */
  requests(): Promise<{ method: string; url: string; headers: Record<string, string> }[]>;
  /** The branches of the repository, as `git for-each-ref` has them. */
  refs(): Promise<string>;
  /** Everything of the repository that the word is looked for in. */
  log(): Promise<string>;
}

const CONTROL_PORT = 8081;
export const REPOSITORY = "team/app";

export async function startGitHost(namespace: string, token: string): Promise<GitPod> {
  const labels = { app: "git" };
  const metadata = { name: "git" };
  const repositories = JSON.stringify({ [REPOSITORY]: { token } });
  await apply(
    namespace,
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "git-host" },
      stringData: { "repositories.json": repositories },
    },
    {
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: "git-host" },
      data: { "git-host.ts": readFileSync("test/servers/git-host.ts", "utf8") },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: {
        selector: labels,
        ports: [
          { name: "git", port: GIT.port },
          { name: "control", port: CONTROL_PORT },
        ],
      },
    },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: { selector: { matchLabels: labels }, template: { metadata: { labels }, spec } },
    },
  );
  await kubectl(["rollout", "status", "deployment/git", "-n", namespace, "--timeout=90s"]);
  const ask = async (path: string) =>
    await kubectl([
      "get",
      "--raw",
      `/api/v1/namespaces/${namespace}/services/git:${CONTROL_PORT}/proxy${path}`,
    ]);
  const inRepository = ["-C", `/repositories/${REPOSITORY}.git`];
  const git = async (...args: string[]) =>
    await kubectl(["exec", "deploy/git", "-n", namespace, "--", "git", ...inRepository, ...args]);
  return {
    requests: async () =>
      JSON.parse(await ask("/requests")) as {
        method: string;
        url: string;
        headers: Record<string, string>;
      }[],
    refs: async () => await git("for-each-ref", "--format=%(refname)"),
    log: async () => await git("log", "--all", "-p"),
  };
}

const spec = {
  automountServiceAccountToken: false,
  terminationGracePeriodSeconds: 1,
  securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
  containers: [
    {
      name: "git",
      image: sandboxImage,
      imagePullPolicy: "IfNotPresent",
      command: ["node", "/git-host/git-host.ts"],
      env: [
        { name: "GIT_HOST_ROOT", value: "/repositories" },
        { name: "GIT_HOST_PORT", value: String(GIT.port) },
        { name: "GIT_HOST_CONTROL_PORT", value: String(CONTROL_PORT) },
        { name: "GIT_HOST_REPOSITORIES_FILE", value: "/secret/repositories.json" },
      ],
      readinessProbe: { tcpSocket: { port: GIT.port }, periodSeconds: 1 },
      volumeMounts: [
        { name: "repositories", mountPath: "/repositories" },
        { name: "script", mountPath: "/git-host", readOnly: true },
        { name: "secret", mountPath: "/secret", readOnly: true },
      ],
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
    },
  ],
  volumes: [
    { name: "repositories", emptyDir: {} },
    { name: "script", configMap: { name: "git-host" } },
    { name: "secret", secret: { secretName: "git-host" } },
  ],
};
