import { type ChildProcess, execFile, spawn } from "node:child_process";
import { createPublicKey } from "node:crypto";
import { access, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { Agent, request } from "undici";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { AUDIENCES, ISSUER, type Jwks } from "../../src/protocol/tokens.ts";
import { freePort } from "./free-ports.ts";

const run = promisify(execFile);
const BUILD = "test/cluster/build.sh";

interface VaultAnswer {
  status: number;
  /** What Vault answered; an empty object for none. */
  body: Record<string, unknown>;
}

export interface VaultServer {
  /** `https://localhost:port`. */
  address: string;
  /** Its certificate, which is its own authority. */
  caPem: string;
  /** The same as a file, for `VAULT_CACERT`. */
  caFile: string;
  /** The program, which is its own command line client. */
  program: string;
  rootToken: string;
  unsealKey: string;
  /** Asks as root; throws with Vault's words unless the status is 2xx. `path` is without `/v1/`. */
  api(method: string, path: string, body?: unknown): Promise<VaultAnswer["body"]>;
  /** Asks with another token, or none; never throws for a status. */
  ask(method: string, path: string, body?: unknown, token?: string): Promise<VaultAnswer>;
  /**
   * JWT auth with the issuer's keys, and a role whose tokens read the folder of one CredentialVault
   * in the KV mount `kv` and nothing else: what docs/guides/vault.md tells to set up.
   */
  setUpSessions(issuerKeys: Jwks): Promise<void>;
  /** Writes a KV v2 secret with check-and-set; resolves to its version. */
  put(path: string, data: Record<string, unknown>): Promise<number>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** Kills it as kill -9 does and starts it on the same port with the same data: it is sealed then. */
  restart(): Promise<void>;
  /** Stands still: connections stay open, nothing answers. */
  pause(): void;
  resume(): void;
  /** JSON lines; values in them are hashed by Vault. */
  auditLog(): Promise<string>;
  stop(): Promise<void>;
}

/** An OpenBao to run the same suites against, when there is one on this machine. */
export function openBao(): string | undefined {
  return process.env["BAO_BIN"];
}

/**
 * A real Vault on a free port with TLS and a store in a fresh folder, initialised and unsealed.
 * `program` is another server with the same API (OpenBao).
 */
export async function startVault(options: { program?: string } = {}): Promise<VaultServer> {
  const program = options.program ?? (await findVault());
  const server = new Server(program, await mkdtemp(join(tmpdir(), "drover-vault-")));
  try {
    await server.begin();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

/** The Vault of this machine if it is new enough, or the one that the test bed has built. */
async function findVault(): Promise<string> {
  const version = await run("vault", ["version"]).catch(() => ({ stdout: "" }));
  const [major = 0, minor = 0] = (/v(\d+)\.(\d+)/.exec(version.stdout)?.slice(1) ?? []).map(Number);
  if (major > 1 || minor >= 14) return "vault";
  const { stdout } = await run("bash", [BUILD, "--path", "vault"]);
  const built = stdout.trim();
  await access(built).catch(() => {
    throw new Error(`there is no Vault (1.14 or newer) here; build one: bash ${BUILD} vault`);
  });
  return built;
}

class Server implements VaultServer {
  readonly program: string;
  readonly caFile: string;
  address = "";
  caPem = "";
  rootToken = "";
  unsealKey = "";
  readonly #folder: string;
  #agent = new Agent();
  #child: ChildProcess | undefined;
  // A test process that ends without clean-up must not leave a server behind.
  readonly #onExit = () => this.#child?.kill("SIGKILL");

  constructor(program: string, folder: string) {
    this.program = program;
    this.#folder = folder;
    this.caFile = join(folder, "server.crt");
    process.once("exit", this.#onExit);
  }

  async begin(): Promise<void> {
    const { key, cert } = createSelfSignedCertificate("localhost", Date.now());
    this.caPem = cert;
    this.#agent = new Agent({ connect: { ca: cert } });
    await writeFile(this.caFile, cert);
    await writeFile(join(this.#folder, "server.key"), key, { mode: 0o600 });
    const port = await freePort();
    this.address = `https://localhost:${port}`;
    await writeFile(join(this.#folder, "config.json"), JSON.stringify(this.#config(port)));
    await this.#start();
    const shares = { secret_shares: 1, secret_threshold: 1 };
    const made = await this.api("PUT", "sys/init", shares);
    this.unsealKey = (made["keys"] as string[])[0] ?? "";
    this.rootToken = made["root_token"] as string;
    await this.unseal();
    const audit = { type: "file", options: { file_path: join(this.#folder, "audit.log") } };
    await this.api("PUT", "sys/audit/file", audit);
  }

  #config(port: number) {
    return {
      listener: [
        {
          tcp: {
            address: `127.0.0.1:${port}`,
            tls_cert_file: this.caFile,
            tls_key_file: join(this.#folder, "server.key"),
          },
        },
      ],
      storage: { file: { path: join(this.#folder, "data") } },
      api_addr: this.address,
      disable_mlock: true,
      // OpenBao wants to be told that its API may do this; Vault does not know the word.
      ...(this.program === openBao() ? { unsafe_allow_api_audit_creation: true } : {}),
    };
  }

  async #start(): Promise<void> {
    const child = spawn(this.program, ["server", `-config=${join(this.#folder, "config.json")}`], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        output = `${output}${chunk.toString("utf8")}`.slice(-4096);
      });
    }
    child.once("error", (error) => {
      output += error.message;
    });
    for (let tries = 0; !(await this.#answers()); tries += 1) {
      if (child.pid === undefined || child.exitCode !== null || tries > 600) {
        throw new Error(`the vault did not start: ${output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async #answers(): Promise<boolean> {
    return await this.ask("GET", "sys/seal-status").then(
      ({ status }) => status === 200,
      () => false,
    );
  }

  async ask(method: string, path: string, body?: unknown, token?: string): Promise<VaultAnswer> {
    const answer = await request(`${this.address}/v1/${path}`, {
      dispatcher: this.#agent,
      method: method as "GET",
      headers: token === undefined ? {} : { "x-vault-token": token },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await answer.body.text();
    return {
      status: answer.statusCode,
      body: text === "" ? {} : (JSON.parse(text) as VaultAnswer["body"]),
    };
  }

  async api(method: string, path: string, body?: unknown): Promise<VaultAnswer["body"]> {
    const answer = await this.ask(method, path, body, this.rootToken);
    if (answer.status < 300) return answer.body;
    throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  }

  async setUpSessions(issuerKeys: Jwks): Promise<void> {
    await this.api("POST", "sys/mounts/kv", { type: "kv", options: { version: "2" } });
    await this.#untilMounted();
    await this.api("POST", "kv/config", { cas_required: true });
    await this.api("POST", "sys/auth/jwt", { type: "jwt" });
    await this.api("POST", "auth/jwt/config", {
      jwt_validation_pubkeys: issuerKeys.keys.map((key) =>
        createPublicKey({ key, format: "jwk" }).export({ type: "spki", format: "pem" }),
      ),
      jwt_supported_algs: ["EdDSA"],
      bound_issuer: ISSUER,
    });
    const mounts = (await this.api("GET", "sys/auth")) as Record<string, { accessor: string }>;
    const metadata = `identity.entity.aliases.${mounts["jwt/"]?.accessor}.metadata`;
    const folder = `t/{{${metadata}.ten}}/v/{{${metadata}.vlt}}`;
    await this.api("PUT", "sys/policies/acl/drover-session", {
      policy: `path "kv/data/${folder}/*" { capabilities = ["read"] }`,
    });
    await this.api("POST", "auth/jwt/role/drover-session", {
      role_type: "jwt",
      bound_audiences: [AUDIENCES.vault],
      user_claim: "vid",
      claim_mappings: { ten: "ten", vlt: "vlt" },
      token_policies: ["drover-session"],
      token_type: "batch",
      token_ttl: "5m",
    });
  }

  /** A KV v2 mount upgrades itself for a moment, and answers 400 meanwhile. */
  async #untilMounted(): Promise<void> {
    for (let tries = 0; tries < 200; tries += 1) {
      const { status } = await this.ask("GET", "kv/config", undefined, this.rootToken);
      if (status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error("the KV mount did not come up");
  }

  async put(path: string, data: Record<string, unknown>): Promise<number> {
    const { body } = await this.ask("GET", `kv/metadata/${path}`, undefined, this.rootToken);
    const known = body["data"] as { current_version: number } | undefined;
    const written = await this.api("POST", `kv/data/${path}`, {
      data,
      options: { cas: known?.current_version ?? 0 },
    });
    return (written["data"] as { version: number }).version;
  }

  async seal(): Promise<void> {
    await this.api("PUT", "sys/seal");
  }

  async unseal(): Promise<void> {
    await this.api("PUT", "sys/unseal", { key: this.unsealKey });
    for (let tries = 0; tries < 400; tries += 1) {
      const { status } = await this.ask("GET", "auth/token/lookup-self", undefined, this.rootToken);
      if (status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error("the vault did not come up after it was unsealed");
  }

  async restart(): Promise<void> {
    await this.#kill();
    await this.#start();
  }

  pause(): void {
    this.#child?.kill("SIGSTOP");
  }

  resume(): void {
    this.#child?.kill("SIGCONT");
  }

  async auditLog(): Promise<string> {
    return await readFile(join(this.#folder, "audit.log"), "utf8");
  }

  async stop(): Promise<void> {
    await this.#kill();
    await this.#agent.destroy();
    process.removeListener("exit", this.#onExit);
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }
}
