import { createHash } from "node:crypto";
import type { ToolPinKey, ToolPinStore, ToolPins } from "../../../protocol/proxy-ports.ts";
import type { SessionSnapshot } from "../../../protocol/snapshot.ts";
import { withDeadline } from "../../../runtime/abort.ts";
import { BoundedMap } from "../../../runtime/bounded-map.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { AppError } from "../../../runtime/errors.ts";
import { jsonHash } from "../../audit-record.ts";
import { TIMEOUTS } from "../../limits.ts";
import { isRecord } from "./policy.ts";

/** Pins never change, so a process reads them again only to make them last. */
const CACHE_MS = 3_600_000;
/** That nothing is pinned yet changes with the first list. */
const ABSENT_CACHE_MS = 1000;
const MAX_CACHED = 4096;
/** Tools past this number are not shown. */
const MAX_TOOLS = 1024;

export interface PinnedServer extends ToolPinKey {
  agent: string;
  name: string;
}

export function pinnedServer(
  { tenant, agent }: SessionSnapshot,
  server: { name: string; url: string },
): PinnedServer {
  return {
    tenant,
    revision: agent.revision,
    server: createHash("sha256").update(server.url).digest("hex"),
    agent: agent.name,
    name: server.name,
  };
}

/** What the model is told of a tool: all of it, and nothing of how a server orders its members. */
export function toolHash(tool: Record<string, unknown>): string {
  const { name, title, description, inputSchema, outputSchema, annotations } = tool;
  return jsonHash({ name, title, description, inputSchema, outputSchema, annotations });
}

/**
 * Holds a server to the tools it described when an agent revision was first used (security §7): the
 * first complete list is kept, later descriptions must equal it, and what is new is not shown. A new
 * revision of the Agent is the approval of what there is then.
 */
export class PinnedTools {
  readonly #store: ToolPinStore;
  readonly #clock: Clock;
  readonly #pins = new BoundedMap<{ pins: ToolPins | null; readAt: number }>(MAX_CACHED);
  /** Pages of first lists that are not complete yet, by session and server. */
  readonly #partial = new BoundedMap<Map<string, string>>(MAX_CACHED);
  /** Tools that were not as pinned when a session last saw their list, by session and server. */
  readonly #drifted = new BoundedMap<ReadonlySet<string>>(MAX_CACHED);

  constructor({ store, clock }: { store: ToolPinStore; clock: Clock }) {
    this.#store = store;
    this.#clock = clock;
  }

  /** Throws FORBIDDEN for a tool that is not pinned or has changed, UNAVAILABLE when nobody can say. */
  async checkCall(server: PinnedServer, session: string, tool: string): Promise<void> {
    const pins = await this.#read(server);
    if (pins === null) return;
    const hasDrifted = this.#drifted.get(listKey(server, session))?.has(tool) === true;
    const isPinned = Object.hasOwn(pins, tool);
    if (isPinned && !hasDrifted) return;
    const what = isPinned ? "its description has changed" : "it is new: the server has added it";
    throw new AppError(
      "FORBIDDEN",
      `tool "${tool}" of MCP server "${server.name}" is blocked: ${what} since revision ` +
        `${server.revision} of agent "${server.agent}" was first used; to approve it as it is now, ` +
        "publish a new revision: any edit of the Agent makes one",
    );
  }

  /**
   * The tools of one page of a list that are as pinned, and how many are not. The first list pins
   * once its last page has come. Throws UNAVAILABLE.
   */
  async filter(
    server: PinnedServer,
    session: string,
    page: { tools: readonly unknown[]; isFirst: boolean; isLast: boolean },
  ): Promise<{ tools: unknown[]; hidden: number }> {
    const hashes = page.tools.map((tool) =>
      isRecord(tool) && typeof tool["name"] === "string"
        ? { tool, name: tool["name"], hash: toolHash(tool) }
        : undefined,
    );
    const named = hashes.filter((each) => each !== undefined);
    const pins = (await this.#read(server)) ?? (await this.#begin(server, session, page, named));
    const asPinned = named.filter(({ name, hash }) => pins[name] === hash);
    this.#remember(listKey(server, session), named, pins, page.isFirst);
    return { tools: asPinned.map(({ tool }) => tool), hidden: hashes.length - asPinned.length };
  }

  /** Adds a page of the first list; keeps the pins when it is the last. */
  async #begin(
    server: PinnedServer,
    session: string,
    { isFirst, isLast }: { isFirst: boolean; isLast: boolean },
    page: readonly { name: string; hash: string }[],
  ): Promise<ToolPins> {
    const key = listKey(server, session);
    const seen = new Map(isFirst ? [] : this.#partial.get(key));
    for (const { name, hash } of page) {
      if (!seen.has(name) && seen.size < MAX_TOOLS) seen.set(name, hash);
    }
    const pins: ToolPins = Object.fromEntries(seen);
    if (!isLast) {
      this.#partial.set(key, seen);
      return pins;
    }
    this.#partial.delete(key);
    const kept = await this.#ask("keeping the tools of a server", () =>
      this.#store.keepPins(server, pins),
    );
    this.#pins.set(keyText(server), { pins: kept, readAt: this.#clock.monotonic() });
    return kept;
  }

  #remember(
    key: string,
    page: readonly { name: string; hash: string }[],
    pins: ToolPins,
    isFirst: boolean,
  ): void {
    const drifted = new Set(isFirst ? [] : this.#drifted.get(key));
    for (const { name, hash } of page) if (pins[name] !== hash) drifted.add(name);
    this.#drifted.set(key, drifted);
  }

  async #read(server: PinnedServer): Promise<ToolPins | null> {
    const key = keyText(server);
    const known = this.#pins.get(key);
    const age = this.#clock.monotonic() - (known?.readAt ?? Number.NEGATIVE_INFINITY);
    if (known !== undefined && age <= (known.pins === null ? ABSENT_CACHE_MS : CACHE_MS)) {
      return known.pins;
    }
    try {
      const pins = await this.#ask("reading the tools of a server", () =>
        this.#store.readPins(server),
      );
      this.#pins.set(key, { pins, readAt: this.#clock.monotonic() });
      return pins;
    } catch (error) {
      if (known !== undefined && known.pins !== null) return known.pins;
      throw error;
    }
  }

  async #ask<T>(what: string, work: () => Promise<T>): Promise<T> {
    return await withDeadline(this.#clock, TIMEOUTS.storeMs, what, work);
  }
}

function listKey(server: ToolPinKey, session: string): string {
  return `${session} ${keyText(server)}`;
}

function keyText({ tenant, revision, server }: ToolPinKey): string {
  return `${tenant} ${revision} ${server}`;
}
