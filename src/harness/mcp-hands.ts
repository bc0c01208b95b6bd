import {
  Client,
  ProtocolError,
  SdkHttpError,
  StreamableHTTPClientTransport,
} from "@modelcontextprotocol/client";
import { z } from "zod";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { MCP_CALL_MS } from "../runtime/mcp-settings.ts";
import { VERSION } from "../runtime/version.ts";
import { contentText } from "./mcp-content.ts";
import { type McpTool, ToolList } from "./mcp-tools.ts";
import { exactResult, guardedFetch } from "./mcp-wire.ts";
import * as texts from "./outcome-texts.ts";
import type { CallOutcome } from "./run-context.ts";
import { toolText } from "./safe-text.ts";
import type { SessionTokens } from "./tokens.ts";

export interface McpCall {
  server: string;
  tool: string;
  input: Record<string, unknown>;
  toolUseId: string;
  /** May be sent again when its answer is lost. */
  repeatable: boolean;
  signal: AbortSignal;
}

/** MCP servers as hands of one session. */
export interface McpHands {
  /** Rejects when the server cannot be used; `isRefusal` tells whether it refused the credential. */
  listTools(server: string): Promise<McpTool[]>;
  /** What the last list of the server left out, one sentence each. */
  problems(server: string): readonly string[];
  callTool(call: McpCall): Promise<CallOutcome>;
  close(): Promise<void>;
}

const CONNECT_DEADLINE_MS = 20_000;
/** The server does not know this MCP session any more, so it has not run the call. */
const LOST_SESSION = new Set([400, 404]);

export interface SidecarMcpDeps {
  sidecarUrl: string;
  tokens: SessionTokens;
  fetch: typeof fetch;
  clock: Clock;
  logger: Logger;
  /** So long one call may take; `MCP_CALL_MS` if absent. */
  callMs?: number;
}

/** One MCP session with a server. Replaced when it fails, closed when its last call has ended. */
interface Connection {
  client: Promise<Client>;
  calls: number;
  isRetired: boolean;
}

/** Any object: the client must neither reject a result for a field nor run a schema of the server. */
const anyResult = z.looseObject({});

/** Reaches the servers of the pinned agent through the sidecar, which adds the credentials. */
export class SidecarMcpHands implements McpHands {
  readonly #deps: SidecarMcpDeps;
  readonly #connections = new Map<string, Connection>();
  readonly #problems = new Map<string, readonly string[]>();

  constructor(deps: SidecarMcpDeps) {
    this.#deps = deps;
  }

  async listTools(server: string): Promise<McpTool[]> {
    const connection = this.#connection(server);
    try {
      const client = await connection.client;
      const list = await this.#bounded(`listing the tools of ${server}`, (signal) =>
        readPages(client, new ToolList(server), signal),
      );
      this.#problems.set(server, list.listing.problems);
      return list.listing.tools;
    } catch (error) {
      this.#retire(server, connection);
      throw error;
    }
  }

  problems(server: string): readonly string[] {
    return this.#problems.get(server) ?? [];
  }

  async callTool(call: McpCall): Promise<CallOutcome> {
    for (let attempt = 1; ; attempt += 1) {
      const connection = this.#connection(call.server);
      let client: Client;
      try {
        client = await connection.client;
      } catch (error) {
        this.#retire(call.server, connection);
        return connectFailure(call.server, error);
      }
      connection.calls += 1;
      try {
        return await this.#send(client, call);
      } catch (error) {
        // What ends one call, an answer that is an error or time that is up, is nobody else's end.
        if (call.signal.aborted) throw error;
        this.#deps.logger.debug(
          { toolCallId: call.toolUseId, attempt, err: describeError(error) },
          "mcp call failed",
        );
        if (protocolError(error)) {
          return texts.knownError(`The server answered with an error: ${describeError(error)}`);
        }
        if (codeOf(error) === REQUEST_TIMEOUT) return timedOut(this.#callMs);
        this.#retire(call.server, connection);
        const notRun = LOST_SESSION.has(statusOf(error) ?? 0);
        if (attempt > 1 || !(notRun || call.repeatable)) {
          return notRun ? connectFailure(call.server, error) : texts.outcomeUnknown;
        }
      } finally {
        connection.calls -= 1;
        closeIfDone(connection);
      }
    }
  }

  async close(): Promise<void> {
    const open = [...this.#connections.values()];
    this.#connections.clear();
    // Servers forget sessions by themselves; a close that fails changes nothing.
    await Promise.allSettled(open.map(async ({ client }) => await (await client).close()));
  }

  get #callMs(): number {
    return this.#deps.callMs ?? MCP_CALL_MS;
  }

  async #send(client: Client, call: McpCall): Promise<CallOutcome> {
    const params = {
      name: call.tool,
      arguments: call.input,
      _meta: { "drover.dev/idempotency-key": call.toolUseId },
    };
    const answer = await client.request({ method: "tools/call", params }, anyResult, {
      signal: call.signal,
      timeout: this.#callMs,
      maxTotalTimeout: this.#callMs,
    });
    const result = exactResult(answer);
    return {
      content: toolText(contentText(result)),
      isError: result["isError"] === true,
      outcome: "known",
    };
  }

  #connection(server: string): Connection {
    const held = this.#connections.get(server);
    if (held !== undefined) return held;
    const connection = { client: this.#connect(server), calls: 0, isRetired: false };
    this.#connections.set(server, connection);
    return connection;
  }

  async #connect(server: string): Promise<Client> {
    const client = new Client({ name: "drover-harness", version: VERSION });
    const url = new URL(`${this.#deps.sidecarUrl}/mcp/${encodeURIComponent(server)}`);
    const transport = new StreamableHTTPClientTransport(url, {
      fetch: guardedFetch(this.#authorizedFetch(), this.#deps.clock),
    });
    await this.#bounded(`connecting to ${server}`, (signal) =>
      client.connect(transport, { signal, timeout: CONNECT_DEADLINE_MS }),
    );
    return client;
  }

  /** Tokens are short-lived: each request gets the current one. */
  #authorizedFetch(): typeof fetch {
    return async (input, init) => {
      const headers = new Headers(init?.headers);
      headers.set("authorization", `Bearer ${await this.#deps.tokens.session()}`);
      return await this.#deps.fetch(input, { ...init, headers });
    };
  }

  /** The next call gets a new connection; calls that are under way keep this one. */
  #retire(server: string, connection: Connection): void {
    if (this.#connections.get(server) === connection) this.#connections.delete(server);
    connection.isRetired = true;
    closeIfDone(connection);
  }

  #bounded<T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return withDeadline(this.#deps.clock, CONNECT_DEADLINE_MS, what, work);
  }
}

/** The SDK's code of its own time limit. */
const REQUEST_TIMEOUT = "REQUEST_TIMEOUT";

async function readPages(client: Client, list: ToolList, signal: AbortSignal): Promise<ToolList> {
  let cursor: string | undefined;
  do {
    const params = cursor === undefined ? {} : { cursor };
    const options = { signal, timeout: CONNECT_DEADLINE_MS };
    const page = await client.request({ method: "tools/list", params }, anyResult, options);
    cursor = list.add(exactResult(page));
  } while (cursor !== undefined);
  return list;
}

function closeIfDone({ client, calls, isRetired }: Connection): void {
  if (isRetired && calls === 0) client.then((open) => open.close()).catch(() => {});
}

/** True when the server, or the proxy for it, refused the session's credential. */
export function isRefusal(error: unknown): boolean {
  const status = statusOf(error);
  return status === 401 || status === 403;
}

/**
 * What the proxy says, naming entries that were nearly meant, when the server wants a credential and
 * the session has none for it. Undefined for every other failure.
 */
export function missingCredential(error: unknown): string | undefined {
  if (!(error instanceof ProtocolError)) return undefined;
  const { data } = error;
  const isMissing = typeof data === "object" && data !== null && "code" in data;
  return isMissing && data.code === "CREDENTIAL_NOT_FOUND" ? error.message : undefined;
}

function connectFailure(server: string, error: unknown): CallOutcome {
  return texts.knownError(
    `The MCP server "${server}" cannot be used at the moment (${describeError(error)}). The call had no effect.`,
  );
}

function timedOut(ms: number): CallOutcome {
  const { content, ...outcome } = texts.outcomeUnknown;
  return { ...outcome, content: `The server has not answered within ${ms / 1000} s. ${content}` };
}

function statusOf(error: unknown): number | undefined {
  return error instanceof SdkHttpError ? error.status : undefined;
}

/** A JSON-RPC error is an answer: the server has dealt with the call. Its codes are numbers. */
function protocolError(error: unknown): boolean {
  return (
    codeOf(error) === undefined &&
    typeof error === "object" &&
    error !== null &&
    "code" in error &&
    typeof error.code === "number"
  );
}
