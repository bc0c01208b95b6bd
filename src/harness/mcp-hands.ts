import { Client, SdkHttpError, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { VERSION } from "../runtime/version.ts";
import * as texts from "./outcome-texts.ts";
import type { CallOutcome } from "./run-context.ts";
import { toolText } from "./safe-text.ts";
import type { SessionTokens } from "./tokens.ts";

export interface McpTool {
  name: string;
  description: string;
  inputSchema: { type: "object"; [field: string]: unknown };
  /** The server says that calls change nothing: they may be repeated. */
  readOnly: boolean;
}

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
  callTool(call: McpCall): Promise<CallOutcome>;
  close(): Promise<void>;
}

const CONNECT_DEADLINE_MS = 20_000;
const CALL_DEADLINE_MS = 300_000;
/** The server does not know this MCP session any more, so it has not run the call. */
const LOST_SESSION = new Set([400, 404]);

export interface SidecarMcpDeps {
  sidecarUrl: string;
  tokens: SessionTokens;
  fetch: typeof fetch;
  clock: Clock;
  logger: Logger;
}

/** Reaches the servers of the pinned agent through the sidecar, which adds the credentials. */
export class SidecarMcpHands implements McpHands {
  readonly #deps: SidecarMcpDeps;
  readonly #clients = new Map<string, Promise<Client>>();

  constructor(deps: SidecarMcpDeps) {
    this.#deps = deps;
  }

  async listTools(server: string): Promise<McpTool[]> {
    try {
      const client = await this.#client(server);
      const { tools } = await this.#bounded(`listing the tools of ${server}`, (signal) =>
        client.listTools(undefined, { signal, timeout: CONNECT_DEADLINE_MS }),
      );
      return tools.map((tool) => ({
        name: tool.name,
        description: tool.description ?? tool.title ?? "",
        inputSchema: { ...tool.inputSchema, type: "object" },
        readOnly: tool.annotations?.readOnlyHint === true,
      }));
    } catch (error) {
      this.#forget(server);
      throw error;
    }
  }

  async callTool(call: McpCall): Promise<CallOutcome> {
    for (let attempt = 1; ; attempt += 1) {
      const client = await this.#client(call.server).catch((error: unknown) => {
        this.#forget(call.server);
        return connectFailure(call.server, error);
      });
      if (!(client instanceof Client)) return client;
      try {
        return await this.#send(client, call);
      } catch (error) {
        this.#forget(call.server);
        if (call.signal.aborted) throw error;
        this.#deps.logger.debug(
          { toolCallId: call.toolUseId, attempt, err: describeError(error) },
          "mcp call failed",
        );
        if (protocolError(error))
          return texts.knownError(`The server answered with an error: ${describeError(error)}`);
        const notRun = LOST_SESSION.has(statusOf(error) ?? 0);
        if (attempt > 1 || !(notRun || call.repeatable)) {
          return notRun ? connectFailure(call.server, error) : texts.outcomeUnknown;
        }
      }
    }
  }

  async close(): Promise<void> {
    const open = [...this.#clients.values()];
    this.#clients.clear();
    // Servers forget sessions by themselves; a close that fails changes nothing.
    await Promise.allSettled(open.map(async (client) => await (await client).close()));
  }

  async #send(client: Client, call: McpCall): Promise<CallOutcome> {
    const result = await client.callTool(
      {
        name: call.tool,
        arguments: call.input,
        _meta: { "drover.dev/idempotency-key": call.toolUseId },
      },
      { signal: call.signal, timeout: CALL_DEADLINE_MS, maxTotalTimeout: CALL_DEADLINE_MS },
    );
    return {
      content: toolText(contentText(result)),
      isError: result.isError === true,
      outcome: "known",
    };
  }

  #client(server: string): Promise<Client> {
    const held = this.#clients.get(server);
    if (held !== undefined) return held;
    const connecting = this.#connect(server);
    this.#clients.set(server, connecting);
    return connecting;
  }

  async #connect(server: string): Promise<Client> {
    const client = new Client({ name: "drover-harness", version: VERSION });
    const url = new URL(`${this.#deps.sidecarUrl}/mcp/${encodeURIComponent(server)}`);
    const transport = new StreamableHTTPClientTransport(url, { fetch: this.#authorizedFetch() });
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

  #forget(server: string): void {
    const client = this.#clients.get(server);
    this.#clients.delete(server);
    client?.then((open) => open.close()).catch(() => {});
  }

  #bounded<T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return withDeadline(this.#deps.clock, CONNECT_DEADLINE_MS, what, work);
  }
}

/** True when the server, or the proxy for it, refused the session's credential. */
export function isRefusal(error: unknown): boolean {
  const status = statusOf(error);
  return status === 401 || status === 403;
}

function connectFailure(server: string, error: unknown): CallOutcome {
  return texts.knownError(
    `The MCP server "${server}" cannot be used at the moment (${describeError(error)}). The call had no effect.`,
  );
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

interface ToolContent {
  content?: readonly { type: string; text?: unknown }[];
  structuredContent?: unknown;
}

function contentText(result: ToolContent): string {
  const parts = (result.content ?? []).map((block) =>
    typeof block.text === "string" ? block.text : `[${block.type} content is not shown]`,
  );
  if (parts.length === 0 && result.structuredContent !== undefined) {
    return JSON.stringify(result.structuredContent);
  }
  return parts.join("\n");
}
