import { decodeJwt } from "jose";
import type { SessionRepository } from "../api/agent-session.ts";
import type { RepositoriesResponse } from "../protocol/sandbox-api.ts";
import type { SandboxClient } from "../protocol/sandbox-client.ts";
import { codeOf, describeError } from "../runtime/errors.ts";
import type { EdgeLocator } from "./edge-address.ts";
import { newEvent, type RunContext } from "./run-context.ts";
import type { LiveSandbox } from "./session-state.ts";
import type { SessionTokens } from "./tokens.ts";

/** What failed once may need minutes to fail again: it must not hold up every call. */
const TRY_AGAIN_MS = 300_000;

type RepositoryState = RepositoriesResponse["repositories"][number];
interface Prepared {
  states: RepositoryState[];
  /** When the sandbox's token is to be replaced, ms of the wall clock. */
  renewAt: number;
}

export interface SandboxRepositoriesDeps extends RunContext {
  tokens: Pick<SessionTokens, "sandbox">;
  client: Pick<SandboxClient, "repositories">;
  /** Undefined: the install has none. */
  edge: EdgeLocator | undefined;
}

/**
 * Sees to it that a sandbox has the session's repositories and a token that the edge takes, before its
 * first call under this hold and again before half of the token's life is over. A repository that
 * cannot be cloned costs the session that repository and nothing else (managed-agents-api A.10): the
 * log says so once for each sandbox, the model is told with its next result.
 */
export class SandboxRepositories {
  readonly #deps: SandboxRepositoriesDeps;
  /** By sandbox. */
  readonly #renewAt = new Map<string, number>();
  /** Names of repositories the model knows to be missing, by sandbox. */
  readonly #missing = new Map<string, Set<string>>();
  readonly #notices = new Map<string, string[]>();
  /** Errors in the log, or on their way. */
  readonly #reported = new Set<string>();

  constructor(deps: SandboxRepositoriesDeps) {
    this.#deps = deps;
  }

  /**
   * Has no effect that a repetition would repeat. Throws what the client throws when the daemon cannot
   * be reached or there is no token; then the sandbox must not be used yet.
   */
  async prepare(sandbox: LiveSandbox, signal: AbortSignal): Promise<void> {
    const { snapshot, clock } = this.#deps;
    if (snapshot.repositories.length === 0) return;
    const key = keyOf(sandbox);
    if (clock.now() < (this.#renewAt.get(key) ?? 0)) return;
    const { states, renewAt } = await this.#give(sandbox, signal);
    const failed = states.some(({ state }) => state !== "ready");
    const retryAt = failed ? clock.now() + TRY_AGAIN_MS : Number.POSITIVE_INFINITY;
    this.#renewAt.set(key, Math.min(renewAt, retryAt));
    for (const state of states) await this.#take(sandbox, state);
  }

  /** Lines for the model that its next result from this sandbox begins with; empty when there is no news. */
  takeNotices(sandbox: LiveSandbox): string {
    const lines = this.#notices.get(keyOf(sandbox)) ?? [];
    this.#notices.delete(keyOf(sandbox));
    return lines.map((line) => `${line}\n`).join("");
  }

  async #give(sandbox: LiveSandbox, signal: AbortSignal): Promise<Prepared> {
    const { edge, tokens, client } = this.#deps;
    const { address, sandboxId } = sandbox.provisioned;
    if (edge === undefined) return this.#allFailed("the install has no edge (edge.enabled)");
    let edgeUrl: string;
    try {
      edgeUrl = await edge.url();
    } catch (error) {
      return this.#allFailed(describeError(error));
    }
    const sandboxToken = await tokens.sandbox(sandboxId);
    const repositories = this.#deps.snapshot.repositories.map(
      ({ name, url, branch, path = name }) => ({
        name,
        url,
        path,
        ...(branch === undefined ? {} : { branch }),
      }),
    );
    const request = { edgeUrl, sandboxToken, repositories };
    try {
      const states = await client.repositories(address, request, signal);
      return { states, renewAt: halfLife(sandboxToken) };
    } catch (error) {
      if (!REFUSALS.has(codeOf(error) ?? "")) throw error;
      return this.#allFailed(describeError(error));
    }
  }

  #allFailed(message: string): Prepared {
    const states = this.#deps.snapshot.repositories.map(
      ({ name }): RepositoryState => ({ name, state: "failed", message }),
    );
    return { states, renewAt: Number.POSITIVE_INFINITY };
  }

  async #take(sandbox: LiveSandbox, { name, state, message }: RepositoryState): Promise<void> {
    const repository = this.#deps.snapshot.repositories.find((asked) => asked.name === name);
    if (repository === undefined) return;
    const key = keyOf(sandbox);
    const missing = this.#missing.get(key) ?? new Set();
    this.#missing.set(key, missing);
    const { path = name } = repository;
    if (state === "ready") {
      if (missing.delete(name)) this.#tell(key, `Repository "${name}" is in ${path} now.`);
      return;
    }
    const why = withoutEnd(message ?? NO_REASON[state]);
    if (!missing.has(name)) {
      missing.add(name);
      this.#tell(
        key,
        `Repository "${name}" could not be cloned into ${path}: ${why}. It is tried again with a later call.`,
      );
    }
    await this.#report(sandbox, repository, why);
  }

  #tell(key: string, line: string): void {
    this.#notices.set(key, [...(this.#notices.get(key) ?? []), line]);
  }

  async #report(sandbox: LiveSandbox, { name, url }: SessionRepository, why: string) {
    const { journal, rng } = this.#deps;
    const since = sandbox.provisioned.seq;
    const key = `${since} ${url}`;
    const isLogged = journal.state.events.some(
      ({ seq, type, data }) =>
        seq > since &&
        type === "session.error" &&
        data.type === "repository_clone_error" &&
        data.repository_url === url,
    );
    if (isLogged || this.#reported.has(key)) return;
    this.#reported.add(key);
    const error = {
      type: "repository_clone_error" as const,
      message: `repository "${name}" (${url}) could not be cloned: ${why}`,
      retry_status: "retrying" as const,
      repository_url: url,
    };
    await journal.append([newEvent(rng, "session.error", error)]);
  }
}

/** Answers of a daemon that has no such call, or cannot use this one: the sandbox is well all the same. */
const REFUSALS: ReadonlySet<string> = new Set(["NOT_FOUND", "INPUT_INVALID", "INPUT_TOO_LARGE"]);

const NO_REASON = {
  failed: "no reason was given",
  cloning: "it was still being cloned after an hour",
};

/** Without dots and blanks at its end: one look at each, because a foreign text may have a million of them. */
function withoutEnd(text: string): string {
  let end = text.length;
  while (end > 0 && (text[end - 1] === "." || text[end - 1]?.trim() === "")) end -= 1;
  return text.slice(0, end);
}

/** Announced again at another address it is another daemon, which may know nothing yet. */
function keyOf({ provisioned }: LiveSandbox): string {
  return `${provisioned.sandboxId} ${provisioned.address}`;
}

/** Only read, not checked: the token is another's to trust. */
function halfLife(token: string): number {
  const { iat = 0, exp = 0 } = decodeJwt(token);
  return ((iat + exp) / 2) * 1000;
}
