/** What end-to-end tests do to the cluster that `make cluster-up` brought up. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { eventually } from "../eventually.ts";

const cache = process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache");
const testBed = process.env["DROVER_TEST_BED"] ?? join(cache, "drover", "test-bed");
export const stateDirectory = join(testBed, "state");
const kubeconfig = join(stateDirectory, "kubeconfig");

export const RELEASE = "drover";
export const SYSTEM = "drover";

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

export async function run(program: string, args: string[], input?: string): Promise<Ran> {
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      args,
      {
        maxBuffer: 256 * 1024 * 1024,
        env: {
          ...process.env,
          KUBECONFIG: kubeconfig,
          PATH: `${join(stateDirectory, "bin")}${delimiter}${process.env["PATH"] ?? ""}`,
        },
      },
      (error, stdout, stderr) => {
        const code = typeof error?.code === "number" ? error.code : error ? 1 : 0;
        resolve({ code, stdout, stderr: stderr || (error?.message ?? "") });
      },
    );
    // A program that has ended already reads nothing; its code says how it went.
    child.stdin?.on("error", () => {});
    child.stdin?.end(input ?? "");
  });
}

/** Runs kubectl and throws with its words when it fails. */
export async function kubectl(args: string[], input?: string): Promise<string> {
  const result = await run("kubectl", args, input);
  if (result.code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

export async function helm(args: string[]): Promise<string> {
  const result = await run("helm", args);
  if (result.code !== 0) throw new Error(`helm ${args.join(" ")}: ${result.stderr}`);
  return result.stdout;
}

export interface KubeItem {
  metadata: {
    name: string;
    namespace: string;
    uid: string;
    labels?: Record<string, string>;
    deletionTimestamp?: string;
  };
  spec: Record<string, unknown>;
  status?: Record<string, unknown>;
}

export async function list(kind: string, namespace: string, selector = ""): Promise<KubeItem[]> {
  const args = ["get", kind, "-n", namespace, "-o", "json"];
  if (selector !== "") args.push("-l", selector);
  const parsed = JSON.parse(await kubectl(args)) as { items: KubeItem[] };
  return parsed.items;
}

export async function get(kind: string, namespace: string, name: string): Promise<KubeItem> {
  return JSON.parse(await kubectl(["get", kind, name, "-n", namespace, "-o", "json"])) as KubeItem;
}

export async function createNamespace(name: string): Promise<void> {
  const manifest = {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name, labels: { "pod-security.kubernetes.io/enforce": "restricted" } },
  };
  await kubectl(["apply", "-f", "-"], JSON.stringify(manifest));
}

export async function deleteNamespace(name: string): Promise<void> {
  await kubectl(["delete", "namespace", name, "--ignore-not-found", "--timeout=90s"]);
}

export async function apply(namespace: string, ...objects: object[]): Promise<void> {
  const manifest = { apiVersion: "v1", kind: "List", items: objects };
  await kubectl(["apply", "-n", namespace, "-f", "-"], JSON.stringify(manifest));
}

export async function waitCompleted(namespace: string, name: string, seconds = 90): Promise<void> {
  await waitFor(namespace, name, "condition=Completed", seconds);
}

/** Waits with `kubectl wait`, in its words: `condition=Ready=False`, `jsonpath={.status.state}=Idle`. */
export async function waitFor(
  namespace: string,
  name: string,
  what: string,
  seconds = 60,
): Promise<void> {
  const wait = ["wait", "-n", namespace, `ags/${name}`, `--for=${what}`, `--timeout=${seconds}s`];
  const result = await run("kubectl", wait);
  if (result.code !== 0) throw new Error(`${result.stderr}\n${await story(namespace, name)}`);
}

/** What a person would look at when a session does not do what it should. */
async function story(namespace: string, name: string): Promise<string> {
  const parts = [
    ["get", "ags", name, "-n", namespace, "-o", "yaml"],
    ["get", "pods", "-n", namespace, "-o", "wide"],
    ["events", "-n", namespace],
    ["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=40"],
    [
      "logs",
      "-n",
      SYSTEM,
      "-l",
      "app.kubernetes.io/component=harness",
      "-c",
      "harness",
      "--tail=40",
    ],
  ];
  const texts: string[] = [];
  for (const args of parts) {
    const result = await run("kubectl", args);
    texts.push(`$ kubectl ${args.join(" ")}\n${result.stdout || result.stderr}`);
  }
  return texts.join("\n");
}

export interface LogEntry {
  seq: number;
  type: string;
  data: Record<string, unknown>;
}

export const REDIS_PASSWORD = "e2e-only";

export async function redis(...args: string[]): Promise<string> {
  const client = ["redis-cli", "--no-auth-warning", "-a", REDIS_PASSWORD];
  const pod = `${RELEASE}-valkey-0`;
  return await kubectl(["exec", "-n", SYSTEM, pod, "--", ...client, ...args]);
}

/** A script in Redis: one process of kubectl, whatever it looks at. */
async function redisScript(script: string, ...words: string[]): Promise<unknown> {
  return JSON.parse(await redis("--json", "EVAL", script, "0", ...words));
}

/** Names of all keys of one session. */
export async function keysOf(sessionId: string): Promise<string[]> {
  const text = await redis("--scan", "--pattern", `*${sessionId}*`);
  return text.split("\n").filter((line) => line !== "");
}

/** Everything Redis holds, as text: for the search of secrets. */
export async function dumpRedis(): Promise<string> {
  const dump = await redisScript(`
    local read = { string = { 'GET' }, hash = { 'HGETALL' }, set = { 'SMEMBERS' },
      stream = { 'XRANGE', '-', '+' }, list = { 'LRANGE', '0', '-1' }, zset = { 'ZRANGE', '0', '-1' } }
    local all = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
      local command, from, to = unpack(read[redis.call('TYPE', key).ok])
      local value = from and redis.call(command, key, from, to) or redis.call(command, key)
      all[#all + 1] = { key, value }
    end
    return all`);
  return JSON.stringify(dump);
}

/** The session's log, as Redis has it. */
export async function readLog(sessionId: string): Promise<LogEntry[]> {
  const script = `
    local key = redis.call('KEYS', ARGV[1])[1]
    return key and redis.call('XRANGE', key, '-', '+') or {}`;
  const reply = (await redisScript(script, `*${sessionId}*:l`)) as [string, string[]][];
  return reply.map(([id, fields]) => {
    const at = (name: string) => fields[fields.indexOf(name) + 1] ?? "";
    return {
      seq: Number(id.split("-")[0]),
      type: at("t"),
      data: JSON.parse(at("d")) as Record<string, unknown>,
    };
  });
}

/** Requests the scripted model got, oldest first. */
export async function modelRequests(): Promise<{ model: string; headers: object; text: string }[]> {
  const service = `/api/v1/namespaces/${SYSTEM}/services/${RELEASE}-scripted-model:8080`;
  const answer = JSON.parse(await kubectl(["get", "--raw", `${service}/proxy/requests`])) as {
    requests: { model: string; headers: object }[];
  };
  return answer.requests.map((request) => ({ ...request, text: JSON.stringify(request) }));
}

export async function sessionIdOf(namespace: string, name: string): Promise<string> {
  return await eventually(
    "a session id in status",
    async () => {
      const session = await get("ags", namespace, name);
      const id = session.status?.["sessionId"];
      return typeof id === "string" ? id : undefined;
    },
    { withinMs: 30_000 },
  );
}

export async function sandboxPods(namespace: string): Promise<KubeItem[]> {
  return await list("pods", namespace, "drover.dev/sandbox=true");
}

/**
 * Processes of a pod's container on this host whose command line holds `word`: the test bed's node
 * is this machine, so a test can kill one as the kernel would.
 */
export function processesOf(podUid: string, word: string): number[] {
  const uid = podUid.replaceAll("-", "_");
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      const cgroup = read(`/proc/${pid}/cgroup`);
      return cgroup.includes(podUid) || cgroup.includes(uid);
    })
    .filter((pid) => read(`/proc/${pid}/cmdline`).replaceAll("\0", " ").includes(word))
    .map(Number);
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

/** Whether the node is this host, so that its processes can be killed. */
export function nodeIsThisHost(): boolean {
  return existsSync(join(stateDirectory, "pids", "kubelet"));
}
