import type { NewSessionEvent } from "../protocol/session-event.ts";
import { backoffMs } from "../runtime/backoff.ts";
import { isRefusal, type McpHands, missingCredential } from "./mcp-hands.ts";
import type { McpTool } from "./mcp-tools.ts";
import { newEvent, type RunContext } from "./run-context.ts";
import { headAndTail } from "./safe-text.ts";
import { buildCatalog, type ToolCatalog } from "./tools.ts";

export interface SessionToolsDeps
  extends Pick<RunContext, "clock" | "journal" | "logger" | "rng" | "signals" | "snapshot"> {
  mcp: McpHands;
}

/** At the first look a server that does not answer gets so many tries, for one that is just starting. */
const FIRST_TRIES = 3;
const FIRST_PAUSE = { baseMs: 250, maxMs: 1000 };
/** Then it is left out, and tried again before later requests. */
const LATER_PAUSE = { baseMs: 5000, maxMs: 300_000 };
const MAX_REASON_CHARS = 2000;

interface Missing {
  failures: number;
  /** On the monotonic clock. */
  retryAt: number;
}

/**
 * The tools of one hold of one session. A server that cannot be used costs the session its tools and
 * nothing else, until it can be used.
 */
export class SessionTools {
  readonly #deps: SessionToolsDeps;
  readonly #servers: readonly string[];
  readonly #listed = new Map<string, McpTool[]>();
  readonly #missing = new Map<string, Missing>();
  #catalog: ToolCatalog | undefined;

  constructor(deps: SessionToolsDeps) {
    this.#deps = deps;
    this.#servers = (deps.snapshot.agent.tools ?? []).flatMap((tool) =>
      tool.type === "mcp_toolset" && tool.mcpServerName !== undefined ? [tool.mcpServerName] : [],
    );
  }

  async catalog(): Promise<ToolCatalog> {
    const now = this.#deps.clock.monotonic();
    const due = this.#servers.filter(
      (server) => !this.#listed.has(server) && (this.#missing.get(server)?.retryAt ?? now) <= now,
    );
    if (this.#catalog !== undefined && due.length === 0) return this.#catalog;
    const found = await Promise.all(due.map((server) => this.#list(server)));
    if (this.#catalog !== undefined && !found.includes(true)) return this.#catalog;
    const catalog = buildCatalog(this.#deps.snapshot, this.#listed);
    this.#catalog = catalog;
    for (const problem of catalog.problems)
      this.#deps.logger.warn({ reason: problem }, "tool left out");
    await this.#tell(catalog.problems);
    return catalog;
  }

  /** True when the server's tools are there now. */
  async #list(server: string): Promise<boolean> {
    const before = this.#missing.get(server)?.failures ?? 0;
    const tries = before === 0 ? FIRST_TRIES : 1;
    for (let attempt = 1; ; attempt += 1) {
      try {
        this.#listed.set(server, await this.#deps.mcp.listTools(server));
        this.#missing.delete(server);
        await this.#tell(this.#deps.mcp.problems(server));
        return true;
      } catch (error) {
        if (attempt < tries && !isRefusal(error) && (await this.#pause(attempt))) continue;
        await this.#leaveOut(server, before + 1, error);
        return false;
      }
    }
  }

  /** False when there is no time for another try. */
  async #pause(attempt: number): Promise<boolean> {
    const { clock, rng, signals } = this.#deps;
    const ended = AbortSignal.any([signals.leave, signals.hard, signals.dead]);
    await clock.sleep(backoffMs(attempt, FIRST_PAUSE, rng), ended).catch(() => {});
    return !ended.aborted;
  }

  async #leaveOut(server: string, failures: number, error: unknown): Promise<void> {
    const { clock, journal, rng } = this.#deps;
    const retryAt = clock.monotonic() + backoffMs(failures, LATER_PAUSE, rng);
    this.#missing.set(server, { failures, retryAt });
    if (failures > 1) return;
    const missing = missingCredential(error);
    const refused = missing !== undefined || isRefusal(error);
    const type = refused ? "mcp_authentication_failed_error" : "mcp_connection_failed_error";
    const what = refused ? "refused the session's credential" : "cannot be reached";
    // A server can write such an error too, so its length is bounded.
    const why =
      missing === undefined
        ? what
        : `cannot be used: ${headAndTail(missing.toWellFormed(), MAX_REASON_CHARS)}`;
    const message = `MCP server "${server}" ${why}; its tools are left out until it can be used`;
    await journal.append([
      newEvent(rng, "session.error", { type, message, retry_status: "retrying" }),
    ]);
  }

  /** Once in the life of a session: each worker that takes it finds the same problems. */
  async #tell(problems: readonly string[]): Promise<void> {
    const { journal, rng } = this.#deps;
    const told = new Set(
      journal.state.events.flatMap((event) =>
        event.type === "session.error" ? [event.data.message] : [],
      ),
    );
    const news = problems.filter((problem) => !told.has(problem));
    if (news.length === 0) return;
    await journal.append(
      news.map((message): NewSessionEvent => {
        const data = { type: "unknown_error", message, retry_status: "retrying" } as const;
        return newEvent(rng, "session.error", data);
      }),
    );
  }
}
