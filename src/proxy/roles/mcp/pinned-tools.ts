import { hash as digest } from "node:crypto";
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
/** Servers of agent revisions; what is forgotten is read again. */
const MAX_CACHED_PINS = 1024;
/** Lists of sessions: more than a pod's sessions have servers. */
const MAX_LISTS = 4096;
/** Tools past this number, or past what their pins may take in the store, are not shown. */
const MAX_TOOLS = 1024;
const MAX_PINS_BYTES = 128 * 1024;
/** A tool of a longer name is not shown, and no call can name it. */
export const MAX_TOOL_NAME = 256;
/** Pages of a first list; it must end for its tools to be pinned. */
const MAX_PAGES = 64;

export interface ToolPage {
  tools: readonly unknown[];
  /** What the page was asked with; undefined for the first. */
  cursor: unknown;
  /** What the next page is to be asked with; undefined after the last. */
  nextCursor: string | undefined;
}

/** A first list on its way from its first page to its last. */
interface Walk {
  /** Hash of the cursor of the page that comes next: a server may make it as long as it likes. */
  next: string;
  pages: number;
  bytes: number;
  seen: Map<string, string>;
}

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
    server: digest("sha256", server.url, "hex"),
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
 * Holds a server to the tools it described when an agent revision was first used
 * (docs/design/security.md#mcp): the first complete list is kept, later descriptions must equal it,
 * and what is new is not shown. A new revision of the Agent is the approval of what there is then.
 */
export class PinnedTools {
  readonly #store: ToolPinStore;
  readonly #clock: Clock;
  readonly #pins = new BoundedMap<{ pins: ToolPins | null; readAt: number }>(MAX_CACHED_PINS);
  /** First lists that are not complete yet, by session and server. */
  readonly #walks = new BoundedMap<Walk>(MAX_CACHED_PINS);
  /** Pinned tools that had changed when a session last saw their list, by session and server. */
  readonly #drifted = new BoundedMap<ReadonlySet<string>>(MAX_LISTS);

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
   * The tools of one page of a list that are as pinned, and how many are not. The first list that was
   * seen from its first page to its last pins. Throws UNAVAILABLE; UPSTREAM_REFUSED past 64 pages.
   */
  async filter(
    server: PinnedServer,
    session: string,
    page: ToolPage,
  ): Promise<{ tools: unknown[]; hidden: number }> {
    const named = page.tools.flatMap((tool) =>
      isRecord(tool) && typeof tool["name"] === "string" && tool["name"].length <= MAX_TOOL_NAME
        ? [{ tool, name: tool["name"], hash: toolHash(tool) }]
        : [],
    );
    const pins = (await this.#read(server)) ?? (await this.#begin(server, session, page, named));
    const asPinned = named.filter(({ name, hash }) => pins[name] === hash);
    this.#remember(listKey(server, session), named, pins, page.cursor === undefined);
    return { tools: asPinned.map(({ tool }) => tool), hidden: page.tools.length - asPinned.length };
  }

  /** What a page of the first list may show; its tools are pinned when it is the last. */
  async #begin(
    server: PinnedServer,
    session: string,
    { cursor, nextCursor }: ToolPage,
    page: readonly { name: string; hash: string }[],
  ): Promise<ToolPins> {
    const key = listKey(server, session);
    const isFirst = cursor === undefined;
    const before = isFirst ? undefined : this.#walks.get(key);
    // A part must not stand for the whole: a page out of its turn pins nothing.
    const isInTurn = isFirst || before?.next === jsonHash(cursor);
    const walk = extended(isInTurn ? before : undefined, page);
    const pins: ToolPins = Object.fromEntries(walk.seen);
    if (!isInTurn) return pins;
    this.#walks.delete(key);
    if (nextCursor !== undefined) {
      if (walk.pages >= MAX_PAGES) throw tooManyPages(server);
      this.#walks.set(key, { ...walk, next: jsonHash(nextCursor) });
      return pins;
    }
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
    // Those that are not pinned are refused for that.
    for (const { name, hash } of page) {
      if (Object.hasOwn(pins, name) && pins[name] !== hash) drifted.add(name);
    }
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

/** With the tools of one more page, as far as there is room; of two of one name the first counts. */
function extended(
  walk: Walk | undefined,
  page: readonly { name: string; hash: string }[],
): Omit<Walk, "next"> {
  const seen = new Map(walk?.seen);
  let bytes = walk?.bytes ?? 0;
  for (const { name, hash } of page) {
    const size = Buffer.byteLength(JSON.stringify({ [name]: hash }));
    if (seen.has(name) || seen.size >= MAX_TOOLS || bytes + size > MAX_PINS_BYTES) continue;
    seen.set(name, hash);
    bytes += size;
  }
  return { pages: (walk?.pages ?? 0) + 1, bytes, seen };
}

function tooManyPages({ name }: PinnedServer): AppError {
  return new AppError(
    "UPSTREAM_REFUSED",
    `MCP server "${name}" lists its tools in more than ${MAX_PAGES} pages`,
    { details: { limit: MAX_PAGES } },
  );
}

function listKey(server: ToolPinKey, session: string): string {
  return `${session} ${keyText(server)}`;
}

function keyText({ tenant, revision, server }: ToolPinKey): string {
  return `${tenant} ${revision} ${server}`;
}
