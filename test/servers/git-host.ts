import { type ChildProcessWithoutNullStreams, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import {
  createServer as createHttpServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

/**
 * A git host as its users see it: smart HTTP with real `git http-backend` behind Basic auth, one
 * token a repository. Only `node:` imports, so that the file runs by itself in a pod of the e2e
 * tests (see `main` below).
 */

const run = promisify(execFile);

export interface GitRequest {
  method: string;
  /** As it came, with its query. */
  url: string;
  headers: IncomingHttpHeaders;
  /** Bytes of the body that have arrived. */
  bodyBytes: number;
  /** The body's beginning, for what is not a pack. */
  bodyStart: Buffer;
}

/** Answers in place of the host; `false` leaves the request to it. */
export type Intercept = (
  request: GitRequest,
  response: ServerResponse,
) => boolean | Promise<boolean>;

export interface RepositoryOptions {
  /** Password of user `x-access-token`; anybody may read and write without one. */
  token?: string;
  /** Branches that the host itself refuses, by a pre-receive hook. */
  protectedBranches?: readonly string[];
}

export interface GitHostOptions {
  port?: number;
  address?: string;
  /** Folder for the repositories; a temporary one, removed on close, when absent. */
  root?: string;
  tls?: { key: string; cert: string };
}

export class GitHost {
  readonly root: string;
  readonly received: GitRequest[] = [];
  /** Replaces the host's own behaviour for tests of a hostile one. */
  intercept: Intercept | undefined;
  readonly #tokens = new Map<string, string | undefined>();
  readonly #children = new Set<ChildProcessWithoutNullStreams>();
  readonly #server: Server;
  readonly #scheme: "http" | "https";
  readonly #isTemporary: boolean;
  #port = 0;

  static async start(options: GitHostOptions = {}): Promise<GitHost> {
    const root = options.root ?? (await mkdtemp(join(tmpdir(), "drover-git-host-")));
    await mkdir(root, { recursive: true });
    const host = new GitHost(root, options);
    await host.#listen(options.port ?? 0, options.address ?? "127.0.0.1");
    return host;
  }

  private constructor(root: string, options: GitHostOptions) {
    this.root = root;
    this.#isTemporary = options.root === undefined;
    this.#scheme = options.tls === undefined ? "http" : "https";
    const handle = (request: IncomingMessage, response: ServerResponse) => {
      this.#handle(request, response).catch(() => response.destroy());
    };
    this.#server =
      options.tls === undefined ? createHttpServer(handle) : createHttpsServer(options.tls, handle);
    this.#server.requestTimeout = 0;
  }

  get port(): number {
    return this.#port;
  }

  /** `127.0.0.1:<port>`: what a list of in-cluster servers names. */
  get authority(): string {
    return `127.0.0.1:${this.#port}`;
  }

  get url(): string {
    return `${this.#scheme}://${this.authority}`;
  }

  /** `name` is `<team>/<repository>`, without `.git`. */
  repositoryUrl(name: string): string {
    return `${this.url}/${name}`;
  }

  /** Folder of the bare repository, for git commands of a test. */
  folder(name: string): string {
    return join(this.root, `${name}.git`);
  }

  /** A bare repository whose `main` has one commit with README.md. */
  async addRepository(name: string, options: RepositoryOptions = {}): Promise<void> {
    const folder = this.folder(name);
    await mkdir(folder, { recursive: true });
    await this.git(["init", "--quiet", "--bare", "--initial-branch=main", folder]);
    for (const setting of ["http.receivepack", "uploadpack.allowFilter"]) {
      await this.git(["-C", folder, "config", setting, "true"]);
    }
    await this.git(["-C", folder, "config", "receive.advertisePushOptions", "true"]);
    await this.#firstCommit(folder, name);
    const names = options.protectedBranches ?? [];
    if (names.length > 0) {
      await writeFile(join(folder, "hooks", "pre-receive"), protectHook(names), { mode: 0o755 });
    }
    this.#tokens.set(name, options.token);
  }

  /** From now on only this token opens the repository. */
  rotate(name: string, token: string): void {
    this.#tokens.set(name, token);
  }

  /** From now on no token opens the repository. */
  revoke(name: string): void {
    this.#tokens.set(name, randomBytes(32).toString("hex"));
  }

  /** Output of a git command on the bare repository: `host.read("team/app", "rev-parse", "main")`. */
  async read(name: string, ...args: string[]): Promise<string> {
    return (await this.git(["-C", this.folder(name), ...args])).trim();
  }

  /** Runs git without the settings of whoever runs the tests. */
  async git(args: readonly string[], env: Record<string, string> = {}): Promise<string> {
    const { stdout } = await run("git", args, { env: { ...this.#gitEnv(), ...env } });
    return stdout;
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
    if (this.#isTemporary) await rm(this.root, { recursive: true, force: true });
  }

  async #listen(port: number, address: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, address, resolve);
    });
    const bound = this.#server.address();
    if (bound === null || typeof bound === "string") throw new Error("the git host has no port");
    this.#port = bound.port;
  }

  async #firstCommit(folder: string, name: string): Promise<void> {
    const readme = join(folder, "first-readme");
    await writeFile(readme, `# ${name}\n`);
    const git = async (...args: string[]) => (await this.git(["-C", folder, ...args])).trim();
    const blob = await git("hash-object", "-w", readme);
    await rm(readme);
    // A tree object by hand: `<mode> <name>\0<20 bytes>`.
    const entry = Buffer.concat([
      Buffer.from("100644 README.md\0", "latin1"),
      Buffer.from(blob, "hex"),
    ]);
    const treeFile = join(folder, "first-tree");
    await writeFile(treeFile, entry);
    const tree = await git("hash-object", "-t", "tree", "-w", treeFile);
    await rm(treeFile);
    const commit = await git("commit-tree", tree, "-m", "First commit");
    await git("update-ref", "refs/heads/main", commit);
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const received: GitRequest = {
      method: request.method ?? "",
      url: request.url ?? "",
      headers: request.headers,
      bodyBytes: 0,
      bodyStart: Buffer.alloc(0),
    };
    this.received.push(received);
    if (this.intercept !== undefined && (await this.intercept(received, response))) {
      request.resume();
      return;
    }
    const [path = "", query = ""] = received.url.split("?");
    const name = this.#repositoryOf(path);
    if (name === undefined) return refuse(request, response, 404, "Repository not found.");
    const token = this.#tokens.get(name);
    if (token !== undefined && request.headers.authorization !== basic(token)) {
      response.setHeader("www-authenticate", 'Basic realm="git"');
      return refuse(request, response, 401, "Authentication failed.");
    }
    this.#serve(received, request, response, {
      PATH_INFO: path.replace(`/${name}`, `/${name}.git`).replace(".git.git", ".git"),
      QUERY_STRING: query,
      ...(token === undefined ? {} : { REMOTE_USER: "x-access-token" }),
    });
  }

  #repositoryOf(path: string): string | undefined {
    return [...this.#tokens.keys()].find(
      (name) => path.startsWith(`/${name}/`) || path.startsWith(`/${name}.git/`),
    );
  }

  /** One CGI call: what Apache does around `git http-backend`. */
  #serve(
    received: GitRequest,
    request: IncomingMessage,
    response: ServerResponse,
    about: Record<string, string>,
  ): void {
    const header = (name: string) => String(request.headers[name] ?? "");
    const child = spawn("git", ["http-backend"], {
      env: {
        ...this.#gitEnv(),
        ...about,
        GIT_PROJECT_ROOT: this.root,
        GIT_HTTP_EXPORT_ALL: "1",
        GIT_PROTOCOL: header("git-protocol"),
        REQUEST_METHOD: request.method ?? "",
        CONTENT_TYPE: header("content-type"),
        HTTP_CONTENT_ENCODING: header("content-encoding"),
        ...(request.headers["content-length"] === undefined
          ? {}
          : { CONTENT_LENGTH: header("content-length") }),
      },
    });
    this.#children.add(child);
    child.once("close", () => this.#children.delete(child));
    child.once("error", () => response.destroy());
    child.stderr.resume();
    child.stdin.on("error", () => {});
    request.on("data", (chunk: Buffer) => {
      received.bodyBytes += chunk.length;
      if (received.bodyStart.length < 65_536) {
        received.bodyStart = Buffer.concat([received.bodyStart, chunk]).subarray(0, 65_536);
      }
    });
    request.pipe(child.stdin);
    // Half a body must not pass for a whole one.
    request.once("close", () => {
      if (!request.complete) child.kill("SIGKILL");
    });
    relayCgi(child, response);
  }

  #gitEnv(): Record<string, string> {
    return {
      PATH: process.env["PATH"] ?? "",
      HOME: this.root,
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_AUTHOR_NAME: "Git Host",
      GIT_AUTHOR_EMAIL: "git@host.example",
      GIT_COMMITTER_NAME: "Git Host",
      GIT_COMMITTER_EMAIL: "git@host.example",
    };
  }
}

/** Sends `info/refs` to another place, as a host does whose repository has moved. */
export function redirectTo(url: string): Intercept {
  return (request, response) => {
    if (!request.url.includes("/info/refs")) return false;
    response.writeHead(302, { location: url }).end();
    return true;
  };
}

/** Answers with what it was given: the credential comes back raw, decoded and in a header. */
export function echoCredential(status: number): Intercept {
  return (request, response) => {
    const sent = request.headers.authorization ?? "";
    const pair = Buffer.from(sent.replace(/^Basic /, ""), "base64").toString("utf8");
    response.writeHead(status, { "content-type": "text/plain", "x-echo": sent });
    response.end(`not accepted: ${sent} (${pair}, ${pair.split(":")[1] ?? ""})\n`);
    return true;
  };
}

/** Lets every request wait first. */
export function delayed(ms: number): Intercept {
  return async () => {
    await new Promise((resolve) => setTimeout(resolve, ms));
    return false;
  };
}

function basic(token: string): string {
  return `Basic ${Buffer.from(`x-access-token:${token}`).toString("base64")}`;
}

function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  text: string,
): void {
  request.resume();
  response.writeHead(status, { "content-type": "text/plain" }).end(`${text}\n`);
}

/** Header lines, an empty line, the body. */
function relayCgi(child: ChildProcessWithoutNullStreams, response: ServerResponse): void {
  let head = Buffer.alloc(0);
  const onData = (chunk: Buffer) => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) return;
    child.stdout.off("data", onData);
    let status = 200;
    for (const line of head.subarray(0, end).toString("latin1").split("\r\n")) {
      const colon = line.indexOf(":");
      const [name, value] = [line.slice(0, colon), line.slice(colon + 1).trim()];
      if (name.toLowerCase() === "status") status = Number.parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.writeHead(status);
    response.write(head.subarray(end + 4));
    child.stdout.pipe(response);
  };
  child.stdout.on("data", onData);
  child.once("close", (code) => {
    if (!response.headersSent) response.writeHead(500).end(`http-backend ended (${code})\n`);
  });
}

/** The words of a large host, so that a test can look for them. */
function protectHook(branches: readonly string[]): string {
  const refs = branches.map((branch) => `refs/heads/${branch}`).join("|");
  return `#!/bin/sh
while read old new ref; do
  case "$ref" in
    ${refs})
      echo "error: GH006: Protected branch update failed for $ref." >&2
      exit 1
      ;;
  esac
done
`;
}

/**
 * By itself: `node git-host.ts` with GIT_HOST_REPOSITORIES, a JSON object
 * `{"team/app": {"token": "…", "protectedBranches": ["main"]}}` (or GIT_HOST_REPOSITORIES_FILE),
 * GIT_HOST_PORT (8080), GIT_HOST_ROOT and GIT_HOST_CONTROL_PORT (8081), on which a test asks:
 * `GET /requests`, `GET /refs?repository=team/app`, `POST /token?repository=team/app` with the new
 * token as body (none revokes).
 */
async function main(env: Readonly<Record<string, string | undefined>>): Promise<void> {
  const root = env["GIT_HOST_ROOT"];
  const host = await GitHost.start({
    port: Number(env["GIT_HOST_PORT"] ?? 8080),
    address: "0.0.0.0",
    ...(root === undefined ? {} : { root }),
  });
  const file = env["GIT_HOST_REPOSITORIES_FILE"];
  const text =
    file === undefined ? (env["GIT_HOST_REPOSITORIES"] ?? "{}") : await readFile(file, "utf8");
  const repositories = JSON.parse(text) as Record<string, RepositoryOptions>;
  for (const [name, options] of Object.entries(repositories)) {
    await host.addRepository(name, options);
  }
  const control = createHttpServer((request, response) => {
    answerControl(host, request)
      .then((answer) => response.end(answer))
      .catch((error: unknown) => response.writeHead(400).end(String(error)));
  });
  control.listen(Number(env["GIT_HOST_CONTROL_PORT"] ?? 8081), "0.0.0.0");
  process.once("SIGTERM", () => process.exit(0));
  process.stdout.write(`git host on port ${host.port}\n`);
}

async function answerControl(host: GitHost, request: IncomingMessage): Promise<string> {
  const asked = new URL(request.url ?? "", "http://control");
  const repository = asked.searchParams.get("repository") ?? "";
  switch (`${request.method} ${asked.pathname}`) {
    case "GET /requests":
      return JSON.stringify(
        host.received.map(({ method, url, headers, bodyBytes }) => ({
          method,
          url,
          headers,
          bodyBytes,
        })),
      );
    case "GET /refs":
      return await host.read(repository, "for-each-ref", "--format=%(refname) %(objectname)");
    case "POST /token": {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(Buffer.from(chunk as Uint8Array));
      const token = Buffer.concat(chunks).toString("utf8").trim();
      if (token === "") host.revoke(repository);
      else host.rotate(repository, token);
      return "ok\n";
    }
    default:
      throw new Error("no such route");
  }
}

// Not awaited: Jest cannot load a module with a top-level await. A rejection ends the process.
if (import.meta.main) void main(process.env);
