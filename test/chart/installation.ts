/** One installation of the chart on a real API server, with its processes run as their service accounts. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { freePorts } from "../servers/free-ports.ts";
import { type RedisServer, startRedis } from "../servers/redis-server.ts";
import { CHART, containersOf, helm, NAMESPACE, podTemplates, render } from "./helm.ts";

export const TEAM = "team-a";
const ENFORCED = {
  "pod-security.kubernetes.io/enforce": "restricted",
  "pod-security.kubernetes.io/warn": "restricted",
};

export interface Item {
  metadata: { name: string; finalizers?: string[]; labels?: Record<string, string> };
  spec: Record<string, unknown>;
  status?: Record<string, unknown>;
  data?: Record<string, string>;
}

/** One request in the audit log. */
export interface Audited {
  user: string;
  verb: string;
  /** `group/resource/subresource`, the core group left out. */
  resource: string;
  code: number;
}

interface AuditLine {
  verb: string;
  user: { username: string };
  objectRef?: { apiGroup?: string; resource: string; subresource?: string };
  responseStatus?: { code?: number };
}

export interface RunningProcess {
  child: ChildProcess;
  healthPort: number;
  issuerPort: number;
  output(): string;
}

export class Installation {
  readonly api: ApiServer;
  readonly redis: RedisServer;
  readonly values: readonly string[];
  readonly #folder: string;

  private constructor(api: ApiServer, redis: RedisServer, folder: string) {
    this.api = api;
    this.redis = redis;
    this.#folder = folder;
    this.values = ["--set", `redis.url=${redis.url}`, "--set", "defaultPool.allowedNamespaces=All"];
  }

  /** An API server with our kinds, an empty install namespace that enforces `restricted`, and a tenant's. */
  static async start(): Promise<Installation> {
    const folder = await mkdtemp(join(tmpdir(), "drover-installation-"));
    const [api, redis] = await Promise.all([
      // The plug-in is on in some distributions: whoever names an owner must be allowed to hold it up.
      startApiServer({
        audit: true,
        args: ["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"],
      }),
      startRedis(),
    ]);
    const installation = new Installation(api, redis, folder);
    await installation.kubectl(["apply", "--server-side", "-f", `${CHART}/crds`]);
    await installation.kubectl(["wait", "--for=condition=Established", "crd", "--all"]);
    for (const name of [NAMESPACE, TEAM]) {
      await installation.apply({
        apiVersion: "v1",
        kind: "Namespace",
        metadata: { name, labels: { ...ENFORCED, team: "a" } },
      });
    }
    return installation;
  }

  async stop(): Promise<void> {
    await this.api.stop();
    await this.redis.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async kubectl(args: readonly string[], input?: string): Promise<string> {
    const result = await this.api.kubectl(args, input);
    if (result.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  async helm(...args: string[]): Promise<string> {
    const result = await helm(args, { KUBECONFIG: this.api.kubeconfigPath });
    if (result.code !== 0) throw new Error(`helm ${args.join(" ")}: ${result.stderr}`);
    return result.stdout;
  }

  async apply(...objects: object[]): Promise<void> {
    const list = { apiVersion: "v1", kind: "List", items: objects };
    await this.kubectl(["apply", "-f", "-"], JSON.stringify(list));
  }

  async get(kind: string, namespace: string, name: string): Promise<Item> {
    return JSON.parse(
      await this.kubectl(["get", kind, name, "-n", namespace, "-o", "json"]),
    ) as Item;
  }

  async names(kind: string, ...options: string[]): Promise<string[]> {
    const text = await this.kubectl(["get", kind, "-o", "name", ...options]);
    return text.split("\n").filter((line) => line !== "");
  }

  /**
   * Runs what a workload of the chart runs, with the environment the chart gives it (`more`: values
   * besides ours) and the rights of its service account.
   */
  async run(kind: string, name: string, ...more: string[]): Promise<RunningProcess> {
    const template = podTemplates(await render([...this.values, ...more])).find(
      ({ of }) => of === `${kind} ${name}`,
    );
    const container = template && containersOf(template)[0];
    const account = template?.spec.serviceAccountName ?? "";
    const set = (container?.env ?? []).map(({ name: variable, value, valueFrom }) => {
      const path = valueFrom?.fieldRef?.fieldPath;
      return [variable, path === "metadata.namespace" ? NAMESPACE : (value ?? `${name}-0`)];
    });
    const [healthPort = 0, issuerPort = 0] = await freePorts(2);
    const child = spawn(process.execPath, ["src/cmd/drover.ts", ...(container?.args ?? [])], {
      env: {
        PATH: process.env["PATH"],
        ...(Object.fromEntries(set) as Record<string, string>),
        DROVER_KUBECONFIG: await this.#kubeconfig(account),
        DROVER_HOST: "127.0.0.1",
        DROVER_HEALTH_PORT: `${healthPort}`,
        DROVER_ISSUER_PORT: `${issuerPort}`,
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    const keep = (chunk: Buffer) => {
      output += chunk.toString();
    };
    child.stdout.on("data", keep);
    child.stderr.on("data", keep);
    return { child, healthPort, issuerPort, output: () => output };
  }

  /** Requests of one service account since the start. */
  async audited(account: string): Promise<Audited[]> {
    const text = await readFile(this.api.auditLogPath ?? "", "utf8");
    return text
      .split("\n")
      .filter((line) => line.endsWith("}"))
      .map((line) => JSON.parse(line) as AuditLine)
      .filter(({ user }) => user.username === `system:serviceaccount:${NAMESPACE}:${account}`)
      .map(({ user, verb, objectRef, responseStatus }) => ({
        user: user.username,
        verb,
        resource: [objectRef?.apiGroup, objectRef?.resource, objectRef?.subresource]
          .filter((part) => part !== undefined && part !== "")
          .join("/"),
        code: responseStatus?.code ?? 0,
      }));
  }

  async #kubeconfig(account: string): Promise<string> {
    const token = await this.kubectl(["create", "token", account, "-n", NAMESPACE]);
    const path = join(this.#folder, account);
    const config = {
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "c", cluster: { server: this.api.url, "certificate-authority": this.api.caPath } },
      ],
      users: [{ name: "u", user: { token: token.trim() } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u", namespace: NAMESPACE } }],
      "current-context": "x",
    };
    await writeFile(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  }
}

/** The exit code. */
export async function ended({ child }: RunningProcess): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  return child.exitCode;
}
