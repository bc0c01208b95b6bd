import type { SessionIdentity } from "../../../credentials/credential-source.ts";
import type { SessionSnapshot } from "../../../protocol/snapshot.ts";
import { AppError } from "../../../runtime/errors.ts";
import type { Exchange } from "../../exchange.ts";
import { Redactor } from "../../redaction.ts";
import type { ServerCredential, SessionCredentials } from "../../session-credentials.ts";
import type { SessionSnapshots } from "../../session-snapshots.ts";
import type { Caller } from "../../token.ts";
import { parseServerUrl } from "../../url-match.ts";
import type { Message } from "./messages.ts";
import {
  MAX_TOOL_NAME,
  type PinnedServer,
  type PinnedTools,
  pinnedServer,
} from "./pinned-tools.ts";
import { checkCall } from "./policy.ts";
import type { IdOwner } from "./sealed-ids.ts";

/** One MCP server as one session may use it, ready to be asked. */
export interface Target {
  url: URL;
  name: string;
  /** For messages: `MCP server "docs"`. */
  what: string;
  tools: SessionSnapshot["agent"]["tools"];
  pinned: PinnedServer;
  /** Undefined: it is asked without one. */
  credential: ServerCredential | undefined;
  /** Entries that were nearly for it. */
  nearMisses: readonly string[];
  /** The credential as it is now. Throws CREDENTIAL_…. */
  readCredential: (by: SessionIdentity) => Promise<ServerCredential | undefined>;
  redactor: Redactor;
  owner: Omit<IdOwner, "what">;
}

export interface TargetDeps {
  snapshots: Pick<SessionSnapshots, "get">;
  credentials: Pick<SessionCredentials, "forServer">;
  pins: PinnedTools;
  onRedaction: () => void;
}

/**
 * Finds the server in the session's pinned agent, asks the policy, and reads the credential, in this
 * order: what is not allowed costs no read. Throws NOT_FOUND, FORBIDDEN or CREDENTIAL_….
 */
export async function findTarget(
  deps: TargetDeps,
  exchange: Exchange,
  { claims, session }: Caller,
  server: string,
  message: Message | undefined,
): Promise<Target> {
  const snapshot = await deps.snapshots.get(claims.ten, claims.sub);
  const configured = snapshot.agent.mcpServers?.find(({ name }) => name === server);
  if (configured === undefined) {
    throw new AppError("NOT_FOUND", `the session's agent has no MCP server "${server}"`);
  }
  const { tools } = snapshot.agent;
  const pinned = pinnedServer(snapshot, configured);
  if (message?.kind === "request" && message.method === "tools/call") {
    const tool = toolName(message);
    checkCall(tools, server, tool);
    await deps.pins.checkCall(pinned, claims.sub, tool);
  }
  const url = parseServerUrl(configured.url);
  const access = async (by: SessionIdentity) => await deps.credentials.forServer(snapshot, by, url);
  const { credential, nearMisses, known } = await access(session);
  const { use } = exchange;
  if (credential !== undefined) {
    use.credId = credential.id;
    use.credVersion = credential.version;
  }
  const onHit = () => {
    use.redactions += 1;
    deps.onRedaction();
  };
  return {
    url: new URL(configured.url),
    name: server,
    what: `MCP server "${server}"`,
    tools,
    pinned,
    credential,
    nearMisses,
    readCredential: async (by) => (await access(by)).credential,
    redactor: new Redactor(known, onHit),
    owner: { tenant: claims.ten, sessionId: claims.sub, server },
  };
}

function toolName(message: Extract<Message, { kind: "request" }>): string {
  const name = message.params?.["name"];
  if (typeof name === "string" && name !== "" && name.length <= MAX_TOOL_NAME) return name;
  throw new AppError("INPUT_INVALID", "tools/call needs params.name");
}
