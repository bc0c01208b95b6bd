import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t23-forged-events.test.ts";
const relay = "src/proxy/roles/mcp/event-relay.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T23",
    defence: "A message is written anew: what the server wrote is not repeated",
    file: relay,
    find: "const text = await hooks.relay(data);",
    replace: "const text = (await hooks.relay(data)) === undefined ? undefined : data;",
    test,
    name: "spread over lines",
  },
  {
    case: "T23",
    defence: "Ids of events are sealed",
    file: relay,
    find: "`id: ${hooks.sealId(id)}\\n`",
    replace: "`id: ${id}\\n`",
    test,
    name: "ids that mean something|spread over lines",
  },
  {
    case: "T23",
    defence: "A stream is parsed, not passed on",
    file: relay,
    find: "parser.feed(decoder.decode(chunk, { stream: true }));",
    replace:
      "parser.feed(decoder.decode(chunk, { stream: true })); read = [async () => Buffer.from(chunk).toString()];",
    test,
  },
  {
    case: "T23",
    defence: "A request gets one answer, and its own",
    file: "src/proxy/roles/mcp/answer-relay.ts",
    find: "if (this.#answered || message.id !== this.#deps.request?.id) return undefined;",
    replace: "",
    test,
    name: "cannot answer twice",
  },
];
