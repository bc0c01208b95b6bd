/**
 * A real kube-apiserver over a real etcd for tests: no controllers, no scheduler, no kubelet.
 *
 * Promises: listens on loopback only, keeps everything in one fresh folder, is ready within seconds,
 * and leaves neither process nor folder behind, even when the test process is killed with SIGKILL:
 * a guard process notices that our end of its stdin is gone. Authorization is RBAC (`admin` is in
 * system:masters; other users by `--as`); PodSecurity and ValidatingAdmissionPolicy are on. The
 * ServiceAccount admission plugin is off, because nobody makes the default service accounts.
 * Garbage collection, namespaces that finish Terminating, and quota need the controller manager:
 * not here.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { freePorts } from "../servers/free-ports.ts";

const run = promisify(execFile);
const clusterDir = import.meta.dirname;

export interface ApiServerOptions {
  /** Write an audit log (one JSON line per request, level Metadata) to `auditLogPath`. */
  audit?: boolean;
  /** More kube-apiserver flags; a later flag wins over an earlier one. */
  args?: readonly string[];
  /** How long the API server may take until it answers. Default 60 s: the machine may be busy. */
  timeoutMs?: number;
}

interface KubectlResult {
  code: number;
  stdout: string;
  stderr: string;
}

export interface ApiServer {
  readonly url: string;
  /** An admin kubeconfig that holds its certificates inline. */
  readonly kubeconfigPath: string;
  readonly kubectlPath: string;
  readonly caPath: string;
  readonly adminCertPath: string;
  readonly adminKeyPath: string;
  /** kube-apiserver's and etcd's own output, for a look after a failure. */
  readonly logPath: string;
  readonly auditLogPath: string | undefined;
  /** Runs kubectl as admin. Never throws because of kubectl's exit code. */
  kubectl(args: readonly string[], stdin?: string): Promise<KubectlResult>;
  /** SIGKILLs the API server and starts it on the same port over the same etcd; resolves when ready. */
  restart(): Promise<void>;
  /** Freezes the API server (SIGSTOP): connections stay open, nothing answers. */
  pause(): void;
  resume(): void;
  /** Kills both processes and removes the folder. May be called twice. */
  stop(): Promise<void>;
}

interface Binaries {
  etcd: string;
  apiserver: string;
  kubectl: string;
}

/** Starts etcd and kube-apiserver; resolves when /readyz answers and namespace `default` exists. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const binaries = await findBinaries();
  // Free ports are found by asking for them and letting go: another process may be faster. Then again.
  for (let attempt = 1; ; attempt++) {
    const instance = new Instance(binaries, options);
    try {
      await instance.start();
      return instance;
    } catch (error) {
      const log = await instance.logTail();
      await instance.stop();
      if (attempt === 3 || !log.includes("address already in use")) {
        throw new Error(`the API server did not start: ${String(error)}\n${log}`, { cause: error });
      }
    }
  }
}

/** Programs from KUBEBUILDER_ASSETS when set, otherwise from build.sh, which builds what is missing. */
async function findBinaries(): Promise<Binaries> {
  const names = ["etcd", "kube-apiserver", "kubectl"];
  const assets = process.env["KUBEBUILDER_ASSETS"];
  let paths: string[];
  if (assets) {
    paths = names.map((name) => join(assets, name));
  } else {
    const build = join(clusterDir, "build.sh");
    await run("bash", [build, ...names], { maxBuffer: 1 << 26 });
    const { stdout } = await run("bash", [build, "--path", ...names]);
    paths = stdout.trim().split("\n");
  }
  const [etcd = "", apiserver = "", kubectl = ""] = paths;
  return { etcd, apiserver, kubectl };
}

/**
 * Kills what it was told about, and removes the folder, once our end of its stdin closes.
 * It learns pids by lines `add PID` and `drop PID`.
 */
const guardScript = `
trap '' INT TERM HUP
pids=" "
while read -r verb pid; do
  case $verb in
    add) pids="$pids$pid " ;;
    drop) pids=$(printf %s "$pids" | sed "s/ $pid / /") ;;
  esac
done
for pid in $pids; do kill -9 "$pid" 2>/dev/null; done
for i in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && exit 0; sleep 0.2; done
`;

class Instance implements ApiServer {
  url = "";
  kubeconfigPath = "";
  caPath = "";
  adminCertPath = "";
  adminKeyPath = "";
  logPath = "";
  auditLogPath: string | undefined;
  readonly kubectlPath: string;

  readonly #binaries: Binaries;
  readonly #options: ApiServerOptions;
  #dir = "";
  #apiserverArgs: string[] = [];
  #credentials: { ca: Buffer; cert: Buffer; key: Buffer } | undefined;
  #guard: ChildProcess | undefined;
  #etcd: ChildProcess | undefined;
  #apiserver: ChildProcess | undefined;

  constructor(binaries: Binaries, options: ApiServerOptions) {
    this.#binaries = binaries;
    this.#options = options;
    this.kubectlPath = binaries.kubectl;
  }

  async start(): Promise<void> {
    this.#dir = await mkdtemp(join(tmpdir(), "drover-apiserver-"));
    this.logPath = join(this.#dir, "log");
    this.#guard = startGuard(this.#dir);
    const [port, etcdPort, peerPort] = await freePorts(3);
    await makeCertificates(this.#dir);
    await this.#writeConfig(`https://127.0.0.1:${port}`);
    const etcdUrl = `http://127.0.0.1:${etcdPort}`;
    this.#etcd = this.#spawn(
      this.#binaries.etcd,
      etcdArgs(this.#dir, etcdUrl, `http://127.0.0.1:${peerPort}`),
    );
    this.#apiserverArgs = [
      ...apiserverArgs(this.#dir, `${port}`, etcdUrl),
      ...(this.auditLogPath
        ? [
            `--audit-policy-file=${join(this.#dir, "audit.json")}`,
            `--audit-log-path=${this.auditLogPath}`,
          ]
        : []),
      ...(this.#options.args ?? []),
    ];
    await this.#startApiserver();
  }

  async restart(): Promise<void> {
    await this.#kill(this.#apiserver);
    await this.#startApiserver();
  }

  pause(): void {
    this.#apiserver?.kill("SIGSTOP");
  }

  resume(): void {
    this.#apiserver?.kill("SIGCONT");
  }

  async stop(): Promise<void> {
    await Promise.all([this.#kill(this.#apiserver), this.#kill(this.#etcd)]);
    const guard = this.#guard;
    this.#guard = undefined;
    if (guard) {
      const gone = exited(guard);
      guard.stdin?.end();
      await gone;
    }
  }

  kubectl(args: readonly string[], stdin?: string): Promise<KubectlResult> {
    const env = {
      ...process.env,
      KUBECONFIG: this.kubeconfigPath,
      KUBECACHEDIR: join(this.#dir, "kubectl"),
    };
    return new Promise((resolve, reject) => {
      const child = spawn(this.kubectlPath, args, { env, stdio: ["pipe", "pipe", "pipe"] });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      child.on("error", reject);
      child.on("close", (code) => resolve({ code: code ?? -1, stdout, stderr }));
      child.stdin.on("error", () => {}); // kubectl may end without reading its input
      child.stdin.end(stdin ?? "");
    });
  }

  async logTail(): Promise<string> {
    const text = await readFile(this.logPath, "utf8").catch(() => "");
    return text.split("\n").slice(-30).join("\n");
  }

  async #writeConfig(url: string): Promise<void> {
    this.url = url;
    this.caPath = join(this.#dir, "ca.crt");
    this.adminCertPath = join(this.#dir, "admin.crt");
    this.adminKeyPath = join(this.#dir, "admin.key");
    this.kubeconfigPath = join(this.#dir, "kubeconfig");
    const ca = await readFile(this.caPath);
    const cert = await readFile(this.adminCertPath);
    const key = await readFile(this.adminKeyPath);
    this.#credentials = { ca, cert, key };
    await writeFile(this.kubeconfigPath, kubeconfig(url, ca, cert, key), { mode: 0o600 });
    if (this.#options.audit) {
      this.auditLogPath = join(this.#dir, "audit.log");
      const rule = { level: "Metadata", omitStages: ["RequestReceived"] };
      const policy = { apiVersion: "audit.k8s.io/v1", kind: "Policy", rules: [rule] };
      await writeFile(join(this.#dir, "audit.json"), JSON.stringify(policy));
    }
  }

  async #startApiserver(): Promise<void> {
    this.#apiserver = this.#spawn(this.#binaries.apiserver, this.#apiserverArgs);
    await this.#ready();
  }

  async #ready(): Promise<void> {
    const end = Date.now() + (this.#options.timeoutMs ?? 60_000);
    for (const path of ["/readyz", "/api/v1/namespaces/default"]) {
      while ((await this.#status(path)) !== 200) {
        for (const child of [this.#etcd, this.#apiserver]) {
          if (!child || hasExited(child)) throw new Error(`${child?.spawnfile} ended`);
        }
        if (Date.now() > end) throw new Error(`${path} does not answer`);
        await sleep(50);
      }
    }
  }

  /** The HTTP status, or 0 when nobody answers. */
  #status(path: string): Promise<number> {
    return new Promise((resolve) => {
      const get = request(`${this.url}${path}`, {
        ...this.#credentials,
        agent: false,
        timeout: 2000,
      });
      get.on("response", (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      get.on("timeout", () => get.destroy());
      get.on("error", () => resolve(0));
      get.end();
    });
  }

  #spawn(program: string, args: readonly string[]): ChildProcess {
    const log = openSync(this.logPath, "a");
    // Its own session: Ctrl-C on the test run must not reach it before the guard does.
    const child = spawn(program, args, { detached: true, stdio: ["ignore", log, log] });
    closeSync(log);
    child.on("error", () => {}); // a missing program shows as an exit in #ready
    child.unref();
    if (child.pid) this.#guard?.stdin?.write(`add ${child.pid}\n`);
    return child;
  }

  async #kill(child: ChildProcess | undefined): Promise<void> {
    if (!child || hasExited(child)) return;
    const gone = exited(child);
    child.kill("SIGKILL");
    await gone;
    this.#guard?.stdin?.write(`drop ${child.pid}\n`);
  }
}

function startGuard(dir: string): ChildProcess {
  const guard = spawn("sh", ["-c", guardScript, "sh", dir], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  guard.stdin.on("error", () => {});
  guard.unref();
  // The pipe is a socket at run time; its type does not say so.
  if ("unref" in guard.stdin && typeof guard.stdin.unref === "function") guard.stdin.unref();
  return guard;
}

function hasExited(child: ChildProcess): boolean {
  return child.pid === undefined || child.exitCode !== null || child.signalCode !== null;
}

async function exited(child: ChildProcess): Promise<void> {
  if (hasExited(child)) return;
  child.ref();
  await new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
  });
}

/** One CA, a server certificate, an admin certificate, and the key that signs service-account tokens. */
async function makeCertificates(dir: string): Promise<void> {
  const script = `set -eu
umask 077
${keyCommand("ca")}
openssl req -x509 -new -key ca.key -subj /CN=drover-test-ca -days 3 -out ca.crt -addext keyUsage=critical,keyCertSign,cRLSign
${leafCommands("server", "/CN=kube-apiserver", "serverAuth")}
${leafCommands("admin", "/O=system:masters/CN=admin", "clientAuth")}
${keyCommand("sa")}
openssl ec -in sa.key -pubout -out sa.pub
`;
  await run("sh", ["-c", script], { cwd: dir });
}

function keyCommand(name: string): string {
  return `openssl ecparam -name prime256v1 -genkey -noout -out ${name}.key`;
}

function leafCommands(name: string, subject: string, usage: string): string {
  const serial = Buffer.from(name).toString("hex");
  return `${keyCommand(name)}
printf 'extendedKeyUsage=${usage}\\nsubjectAltName=IP:127.0.0.1,DNS:localhost,DNS:kubernetes.default.svc\\n' >${name}.ext
openssl req -new -key ${name}.key -subj ${subject} |
  openssl x509 -req -CA ca.crt -CAkey ca.key -set_serial 0x${serial} -days 3 -extfile ${name}.ext -out ${name}.crt`;
}

function kubeconfig(url: string, ca: Buffer, cert: Buffer, key: Buffer): string {
  const name = "drover-test";
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name, cluster: { server: url, "certificate-authority-data": ca.toString("base64") } },
    ],
    users: [
      {
        name,
        user: {
          "client-certificate-data": cert.toString("base64"),
          "client-key-data": key.toString("base64"),
        },
      },
    ],
    contexts: [{ name, context: { cluster: name, user: name, namespace: "default" } }],
    "current-context": name,
  });
}

function etcdArgs(dir: string, clientUrl: string, peerUrl: string): string[] {
  return [
    `--data-dir=${join(dir, "etcd")}`,
    `--listen-client-urls=${clientUrl}`,
    `--advertise-client-urls=${clientUrl}`,
    `--listen-peer-urls=${peerUrl}`,
    `--initial-advertise-peer-urls=${peerUrl}`,
    `--initial-cluster=default=${peerUrl}`,
    "--unsafe-no-fsync",
    "--log-level=warn",
  ];
}

function apiserverArgs(dir: string, port: string, etcdUrl: string): string[] {
  const file = (name: string): string => join(dir, name);
  return [
    `--etcd-servers=${etcdUrl}`,
    "--bind-address=127.0.0.1",
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none", // loopback is not a valid endpoint address
    `--secure-port=${port}`,
    "--service-cluster-ip-range=10.0.0.0/24",
    `--tls-cert-file=${file("server.crt")}`,
    `--tls-private-key-file=${file("server.key")}`,
    `--client-ca-file=${file("ca.crt")}`,
    "--authorization-mode=RBAC",
    "--disable-admission-plugins=ServiceAccount",
    `--service-account-key-file=${file("sa.pub")}`,
    `--service-account-signing-key-file=${file("sa.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc",
    "--allow-privileged=true",
    "--profiling=false",
  ];
}
