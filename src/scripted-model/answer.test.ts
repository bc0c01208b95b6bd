import { describe, expect, it } from "@jest/globals";
import { type Answer, answerRequest } from "./answer.ts";
import { type MessagesRequest, messagesRequest } from "./request.ts";
import { parseScripts, type Scenario } from "./script.ts";

function scenarioOf(yaml: string): Scenario {
  const indented = yaml.replaceAll(/^/gm, "    ");
  const script = parseScripts([{ name: "t", text: `scenarios:\n  s:\n${indented}` }]);
  const scenario = script.get("s");
  if (scenario === undefined) throw new Error("no scenario");
  return scenario;
}

function requestOf(...messages: MessagesRequest["messages"]): MessagesRequest {
  const tools = [{ name: "bash", input_schema: { type: "object" } }];
  return messagesRequest.parse({ model: "scripted:s", max_tokens: 100, messages, tools });
}

const user = (content: string) => ({ role: "user" as const, content });

function answered(scenario: Scenario, request: MessagesRequest): Answer {
  const answer = answerRequest("s", scenario, request);
  if (answer.kind !== "answer") throw new Error(`${answer.expected}; got ${answer.got}`);
  return answer;
}

/** The conversation after one more answer and the given results or text. */
function continued(
  request: MessagesRequest,
  answer: Answer,
  reply: { text?: string; result?: string; isError?: boolean },
): MessagesRequest {
  const results = answer.content.flatMap((block) =>
    block.type === "tool_use"
      ? [
          {
            type: "tool_result" as const,
            tool_use_id: block.id,
            content: reply.result ?? "",
            is_error: reply.isError ?? false,
          },
        ]
      : [],
  );
  const text = reply.text === undefined ? [] : [{ type: "text" as const, text: reply.text }];
  return requestOf(
    ...request.messages,
    { role: "assistant", content: answer.content },
    { role: "user", content: [...results, ...text] },
  );
}

const flow = scenarioOf(`
turns:
  - expect: { contains: go }
    think: Let me see.
    say: I look.
    tools: [{ name: bash, input: { command: ls } }, { name: bash, input: { command: pwd } }]
  - name: judge
    branches:
      - when: { isError: true }
        say: Again.
        tools: [{ name: bash, input: { command: ls } }]
        then: judge
    expect: { matches: "^[a-z]" }
    say: Done.
  - say: More.
`);

describe("the answer", () => {
  it("is the turn after as many as there are assistant messages", () => {
    const first = requestOf(user("please go"));
    const one = answered(flow, first);
    const second = continued(first, one, { result: "a.txt" });
    const two = answered(flow, second);
    const three = answered(flow, continued(second, two, { text: "go on" }));

    expect(one.content.map((block) => block.type)).toEqual([
      "thinking",
      "text",
      "tool_use",
      "tool_use",
    ]);
    expect([one.stopReason, two.stopReason]).toEqual(["tool_use", "end_turn"]);
    expect(two.content).toEqual([{ type: "text", text: "Done." }]);
    expect(three.content).toEqual([{ type: "text", text: "More." }]);
  });

  it("takes the first branch that holds, and the replay follows its `then`", () => {
    let request = requestOf(user("go"));
    request = continued(request, answered(flow, request), { result: "no", isError: true });
    for (let round = 0; round < 3; round += 1) {
      const again = answered(flow, request);
      expect(again.turn).toBe(1);
      expect(again.content[0]).toEqual({ type: "text", text: "Again." });
      request = continued(request, again, { result: "no", isError: round < 2 });
    }

    expect(answered(flow, request).content).toEqual([{ type: "text", text: "Done." }]);
  });

  it("is the same for a repeated request, wherever the cache breakpoints stand", () => {
    const plain = requestOf({ role: "user", content: [{ type: "text", text: "go" }] });
    const marked = requestOf({
      role: "user",
      content: [{ type: "text", text: "go", cache_control: { type: "ephemeral" } }],
    });

    const ids = (request: MessagesRequest) => answered(flow, request).content;

    expect(ids(plain)).toEqual(ids(plain));
    expect(ids(marked)).toEqual(ids(plain));
  });

  it("goes on at the right turn when a summary has replaced the conversation", () => {
    const first = requestOf(user("go"));
    const second = continued(first, answered(flow, first), { result: "a.txt" });
    const summary = answered(
      flow,
      continued(second, answered(flow, second), { text: "Summarise the conversation so far." }),
    );
    const text = summary.content[0]?.type === "text" ? summary.content[0].text : "";

    const answer = answered(flow, requestOf(user(`Summary: ${text}`)));

    expect(summary.turn).toBe(-1);
    expect(answer.content).toEqual([{ type: "text", text: "More." }]);
  });

  it.each([
    {
      name: "an `expect` that does not hold",
      request: requestOf(user("stop")),
      want: { turn: 0, expected: 'a last message with {"contains":"go"}', got: "stop" },
    },
    {
      name: "a tool that is not offered",
      request: { ...requestOf(user("go")), tools: [] },
      want: { turn: 0, expected: 'the tool "bash" to be offered', got: "tools: none" },
    },
  ])("is a mismatch for $name", ({ request, want }) => {
    expect(answerRequest("s", flow, request)).toEqual({ kind: "mismatch", scenario: "s", ...want });
  });

  it("is a mismatch past the end of the script", () => {
    const one = scenarioOf("turns: [{ say: Hello. }]");
    const request = requestOf(user("a"), { role: "assistant", content: "Hello." }, user("b"));

    expect(answerRequest("s", one, request)).toMatchObject({
      kind: "mismatch",
      turn: 1,
      expected: "no request: the script has 1 turns",
    });
  });
});

describe("a script", () => {
  it("is refused with every mistake named", () => {
    const text = `
scenarios:
  a: { turns: [{ sy: hi }] }
  b: { turns: [{ say: hi, then: nowhere }] }
  c: { turns: [{ expect: { matches: "(" } }] }
`;

    expect(() => parseScripts([{ name: "x.yaml", text }])).toThrow(
      /scenarios\.a\.turns\.0: .*"sy"[\s\S]*scenarios\.c\.turns\.0\.expect\.matches: is not a regular expression/,
    );
    expect(() =>
      parseScripts([{ name: "x.yaml", text: "scenarios: { b: { turns: [{ then: nowhere }] } }" }]),
    ).toThrow('scenarios.b: "then: nowhere" names no turn');
  });
});
