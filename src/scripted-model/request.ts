import { z } from "zod";

/**
 * The Messages API request as this server accepts it: the rules of the real API that a harness can
 * break by a wrong transcript, each refused with 400 and a message that names the place.
 */

const cacheControl = z.looseObject({ type: z.literal("ephemeral") }).optional();

const textBlock = z.looseObject({
  type: z.literal("text"),
  text: z.string(),
  cache_control: cacheControl,
});
const toolUseBlock = z.looseObject({
  type: z.literal("tool_use"),
  id: z.string().regex(/^[a-zA-Z0-9_-]+$/),
  name: z.string().min(1).max(200),
  input: z.record(z.string(), z.unknown()),
  cache_control: cacheControl,
});
const toolResultBlock = z.looseObject({
  type: z.literal("tool_result"),
  tool_use_id: z.string(),
  content: z.union([z.string(), z.array(textBlock)]).optional(),
  is_error: z.boolean().optional(),
  cache_control: cacheControl,
});
const thinkingBlock = z.looseObject({
  type: z.literal("thinking"),
  thinking: z.string(),
  signature: z.string().min(1),
});
const redactedBlock = z.looseObject({ type: z.literal("redacted_thinking"), data: z.string() });

const contentBlock = z.discriminatedUnion("type", [
  textBlock,
  toolUseBlock,
  toolResultBlock,
  thinkingBlock,
  redactedBlock,
]);
export type ContentBlock = z.output<typeof contentBlock>;

const message = z.looseObject({
  role: z.enum(["user", "assistant"]),
  content: z.union([z.string(), z.array(contentBlock)]),
});

const tool = z.looseObject({
  name: z.string().regex(/^[a-zA-Z0-9_-]{1,128}$/),
  description: z.string().optional(),
  input_schema: z.looseObject({ type: z.literal("object") }),
  cache_control: cacheControl,
});

export const messagesRequest = z.looseObject({
  model: z.string().min(1),
  max_tokens: z.int().min(1),
  messages: z.array(message).min(1),
  system: z.union([z.string(), z.array(textBlock)]).optional(),
  tools: z.array(tool).optional(),
  stream: z.boolean().optional(),
});
export type MessagesRequest = z.output<typeof messagesRequest>;

/** count_tokens takes the same body without `max_tokens`. */
export const countTokensRequest = messagesRequest.omit({ max_tokens: true });

/** A message with its content as blocks; neighbours of one role are joined, as the real API does. */
export interface Message {
  role: "user" | "assistant";
  content: ContentBlock[];
}

export function joinMessages(messages: MessagesRequest["messages"]): Message[] {
  const joined: Message[] = [];
  for (const { role, content } of messages) {
    const blocks: ContentBlock[] =
      typeof content === "string" ? [{ type: "text", text: content }] : content;
    const last = joined.at(-1);
    if (last?.role === role) last.content.push(...blocks);
    else joined.push({ role, content: [...blocks] });
  }
  return joined;
}

/** The first rule the request breaks, in the words of the real API where it has some. */
export function brokenRule(request: MessagesRequest): string | undefined {
  const messages = joinMessages(request.messages);
  return (
    surrogates(request) ??
    emptyContent(request) ??
    cacheBreakpoints(request) ??
    toolNames(request) ??
    roles(messages) ??
    toolPairs(messages)
  );
}

function surrogates(value: unknown): string | undefined {
  if (typeof value === "string") {
    return value.isWellFormed()
      ? undefined
      : "The request body is not valid JSON: no low surrogate in string";
  }
  if (typeof value !== "object" || value === null) return undefined;
  for (const member of Object.values(value)) {
    const broken = surrogates(member);
    if (broken !== undefined) return broken;
  }
  return undefined;
}

function emptyContent(request: MessagesRequest): string | undefined {
  if (request.system === "") return "system: text content blocks must be non-empty";
  if (Array.isArray(request.system)) {
    const bad = request.system.findIndex((block) => block.text.trim() === "");
    if (bad >= 0) return `system.${bad}: text content blocks must be non-empty`;
  }
  for (const [index, { content }] of request.messages.entries()) {
    if (content.length === 0) return `messages.${index}: all messages must have non-empty content`;
    if (typeof content === "string") {
      if (content.trim() === "") return `messages.${index}: text content must be non-whitespace`;
      continue;
    }
    for (const [place, block] of content.entries()) {
      const where = `messages.${index}.content.${place}`;
      if (block.type === "text" && block.text.trim() === "") {
        return `${where}: text content blocks must contain non-whitespace text`;
      }
      if (block.type === "tool_result" && Array.isArray(block.content)) {
        if (block.content.some((part) => part.text === "")) {
          return `${where}: text content blocks must be non-empty`;
        }
      }
    }
  }
  return undefined;
}

function cacheBreakpoints(request: MessagesRequest): string | undefined {
  const places: object[] = [
    ...(request.tools ?? []),
    ...(Array.isArray(request.system) ? request.system : []),
    ...request.messages.flatMap(({ content }) => (typeof content === "string" ? [] : content)),
  ];
  const found = places.filter((place) => "cache_control" in place).length;
  if (found <= 4) return undefined;
  return `A maximum of 4 blocks with cache_control may be provided. Found ${found}.`;
}

function toolNames(request: MessagesRequest): string | undefined {
  const names = (request.tools ?? []).map((entry) => entry.name);
  return new Set(names).size === names.length ? undefined : "tools: Tool names must be unique.";
}

function roles(messages: Message[]): string | undefined {
  if (messages[0]?.role !== "user") return "messages: first message must use the user role";
  if (messages.at(-1)?.role !== "user") {
    return "This model does not support assistant message prefill. The conversation must end with a user message.";
  }
  return undefined;
}

/** Each tool_use has exactly one result, first thing in the next user message, and the reverse. */
function toolPairs(messages: Message[]): string | undefined {
  const seen = new Set<string>();
  let open: string[] = [];
  for (const [index, { role, content }] of messages.entries()) {
    if (role === "user") {
      const problem = badResults(index, content, open);
      if (problem !== undefined) return problem;
      open = [];
    } else {
      if (content.some((block) => block.type === "tool_result")) {
        return `messages.${index}: tool_result blocks can only be in user messages`;
      }
      if (content.at(-1)?.type === "thinking" || content.at(-1)?.type === "redacted_thinking") {
        return `messages.${index}: The final block in an assistant message cannot be \`thinking\`.`;
      }
      open = content.flatMap((block) => (block.type === "tool_use" ? [block.id] : []));
      for (const id of open) {
        if (seen.has(id)) return `messages.${index}: tool_use ids must be unique: ${id}`;
        seen.add(id);
      }
    }
  }
  return undefined;
}

function badResults(index: number, content: ContentBlock[], open: string[]): string | undefined {
  if (content.some((block) => block.type !== "text" && block.type !== "tool_result")) {
    return `messages.${index}: user messages hold text and tool_result blocks only`;
  }
  const results = content.flatMap((block) =>
    block.type === "tool_result" ? [block.tool_use_id] : [],
  );
  const missing = open.filter((id) => !results.includes(id));
  if (missing.length > 0) {
    return `messages.${index - 1}: tool_use ids were found without tool_result blocks immediately after: ${missing.join(", ")}. Each tool_use block must have a corresponding tool_result block in the next message.`;
  }
  const stray = results.find((id) => !open.includes(id));
  if (stray !== undefined) {
    return `messages.${index}: unexpected tool_use_id found in tool_result blocks: ${stray}. Each tool_result block must have a corresponding tool_use block in the previous message.`;
  }
  if (new Set(results).size !== results.length) {
    return `messages.${index}: each tool_use must have a single result`;
  }
  if (content.slice(0, results.length).some((block) => block.type !== "tool_result")) {
    return `messages.${index}: tool_result blocks must come before other content`;
  }
  return undefined;
}
