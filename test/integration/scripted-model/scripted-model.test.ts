import Anthropic from "@anthropic-ai/sdk";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { systemClock } from "../../../src/runtime/clock.ts";
import { codeOf } from "../../../src/runtime/errors.ts";
import type { HttpServer } from "../../../src/runtime/http.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { createRegistry } from "../../../src/runtime/metrics.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import { parseScripts } from "../../../src/scripted-model/script.ts";
import { createScriptedModel } from "../../../src/scripted-model/server.ts";

const SCRIPT = `
scenarios:
  work:
    turns:
      - expect: { contains: start }
        think: I need to look first. 🤔🤔🤔🤔🤔🤔🤔🤔
        say: Let me look at the folder, it will not take long. 🚢🚢🚢🚢🚢🚢🚢🚢🚢🚢🚢
        tools: [{ name: bash, input: { command: ls -l, nested: [1, { a: "ü" }] } }]
      - say: Done.
  paced:
    turns: [{ say: "one two three four five six seven eight", tokensPerSecond: 200, delayMs: 5 }]
`;

let server: HttpServer;
let baseURL: string;
let client: Anthropic;

beforeEach(async () => {
  server = createScriptedModel({
    script: parseScripts([{ name: "test.yaml", text: SCRIPT }]),
    clock: systemClock,
    logger: silentLogger,
    registry: createRegistry("scripted-model", "test"),
    apiKey: new Secret("sk-marker"),
  });
  baseURL = await server.listen({ host: "127.0.0.1", port: 0 });
  client = new Anthropic({ baseURL, apiKey: "sk-marker", maxRetries: 0, logLevel: "off" });
});

afterEach(() => server.close());

const body = {
  model: "scripted:work",
  max_tokens: 100,
  messages: [{ role: "user" as const, content: "start" }],
  tools: [{ name: "bash", input_schema: { type: "object" as const } }],
};

async function plan(faults: object[]): Promise<void> {
  await fetch(`${baseURL}/faults`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ scenario: "work", faults }),
  });
}

async function failure(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => expect("a failure").toBe("seen"),
    (error: unknown) => error,
  );
}

describe("the scripted model", () => {
  it("streams what it answers in one piece, as the official client puts it together", async () => {
    const streamed = await client.messages.stream(body).finalMessage();
    const whole = await client.messages.create(body);

    expect(streamed.content).toEqual(whole.content);
    expect(streamed.stop_reason).toBe("tool_use");
    expect(streamed.usage).toMatchObject({ ...whole.usage });
    expect(streamed.content.at(-1)).toMatchObject({
      name: "bash",
      input: { command: "ls -l", nested: [1, { a: "ü" }] },
    });
  });

  it("paces the stream", async () => {
    const started = performance.now();
    const message = await client.messages
      .stream({ ...body, model: "scripted:paced" })
      .finalMessage();

    expect(message.content[0]).toMatchObject({ text: "one two three four five six seven eight" });
    expect(performance.now() - started).toBeGreaterThan(40);
  });

  it("refuses a request that does not match and says why", async () => {
    const messages = [{ role: "user" as const, content: "hello" }];

    const error = await failure(client.messages.create({ ...body, messages }));

    expect(error).toMatchObject({
      status: 400,
      message: expect.stringContaining(
        'SCRIPT_MISMATCH: scenario \\"work\\", turn 0: expected a last message with',
      ),
    });
  });

  it("refuses an unknown model, a wrong key and a bad transcript", async () => {
    const wrongKey = client.withOptions({ apiKey: "sk-other" });
    const blank = [{ role: "user" as const, content: " " }];

    const errors = [
      await failure(client.messages.create({ ...body, model: "scripted:other" })),
      await failure(wrongKey.messages.create(body)),
      await failure(client.messages.create({ ...body, messages: blank })),
    ];

    expect(errors).toMatchObject([{ status: 404 }, { status: 401 }, { status: 400 }]);
  });

  it.each([
    { fault: { kind: "status", status: 529 }, want: { status: 529, type: "overloaded_error" } },
    {
      fault: { kind: "status", status: 429, retryAfterSeconds: 7 },
      want: { status: 429, type: "rate_limit_error" },
    },
    { fault: { kind: "hang_up" }, want: { message: "Connection error." } },
    { fault: { kind: "malformed" }, want: {} },
    { fault: { kind: "overloaded_in_stream" }, want: { type: "overloaded_error" } },
    {
      fault: { kind: "overloaded_in_stream", afterDeltas: 3 },
      want: { type: "overloaded_error", status: undefined },
    },
    { fault: { kind: "cut_stream", afterDeltas: 2 }, want: {} },
  ])("injects $fault into the call it was planned for and no other", async ({ fault, want }) => {
    await plan([{ ...fault, call: 2 }]);

    const run = async () => await client.messages.stream(body).finalMessage();
    await run();
    const error = await failure(run());
    const after = await run();

    expect(error).toMatchObject(want);
    expect(after.stop_reason).toBe("tool_use");
  });

  it.each([{ kind: "timeout" }, { kind: "stall_stream", afterDeltas: 1 }])(
    "holds the connection for $kind until the caller gives up",
    async (fault) => {
      await plan([{ ...fault, call: 1 }]);

      const signal = AbortSignal.timeout(200);
      const error = await failure(
        (async () => await client.messages.stream(body, { signal }).finalMessage())(),
      );

      expect(codeOf(error) ?? error).toMatchObject({ message: "Request was aborted." });
    },
  );

  it("lists the requests it saw, without the key", async () => {
    await client.messages.create(body);

    const text = await (await fetch(`${baseURL}/requests`)).text();

    expect(JSON.parse(text)).toMatchObject({
      requests: [
        { n: 1, call: 1, turn: 0, model: "scripted:work", outcome: "answered", tools: ["bash"] },
      ],
    });
    expect(text).toContain('"authorization":"[present]"');
    expect(text).not.toContain("sk-marker");
  });

  it("counts tokens and serves health and metrics", async () => {
    const { max_tokens: _unused, ...counted } = body;
    const tokens = await client.messages.countTokens(counted);
    const metrics = await (await fetch(`${baseURL}/metrics`)).text();

    expect(tokens.input_tokens).toBeGreaterThan(10);
    expect(metrics).toContain('drover_scripted_model_requests_total{outcome="mismatch"} 0');
    expect((await fetch(`${baseURL}/healthz`)).status).toBe(200);
  });
});
