import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLogger } from "../runtime/logger.ts";
import { inputHash } from "./sandbox-api.ts";
import { createSandboxClient } from "./sandbox-client.ts";

const input = { command: "true" };
const request = {
  id: "toolu/1",
  name: "bash",
  input,
  inputHash: inputHash("bash", input),
  epoch: 1,
};
const result = { content: "out", is_error: false, outcome: "known" as const };

type Answer = { status?: number; body: unknown } | Error | "silence";

function asText(url: Parameters<typeof fetch>[0]): string {
  return url instanceof Request ? url.url : url.toString();
}

/** A daemon whose answers are given one by one; it records what it was asked. */
function fakeDaemon(...answers: Answer[]) {
  const asked: string[] = [];
  const doFetch: typeof fetch = async (url, init) => {
    asked.push(`${init?.method} ${asText(url).replace("http://sandbox:1", "")}`);
    const answer = answers.shift() ?? new Error("no more answers");
    if (answer === "silence") {
      return await new Promise((_, reject) =>
        init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)),
      );
    }
    if (answer instanceof Error) throw answer;
    return new Response(JSON.stringify(answer.body), { status: answer.status ?? 200 });
  };
  const clock = new FakeClock();
  const client = createSandboxClient({
    fetch: doFetch,
    clock,
    logger: silentLogger,
    token: () => Promise.resolve("token"),
  });
  return { client, asked, clock };
}

function networkError(code: string): Error {
  return new TypeError("fetch failed", { cause: Object.assign(new Error(code), { code }) });
}

const started = { body: { id: request.id, state: "started" } };
const done = { body: { id: request.id, state: "done", result } };
const POST = "POST /v1/execute?waitMs=20000";
const GET = "GET /v1/execute/toolu%2F1?waitMs=20000";

describe("execute", () => {
  it("asks by id until a long call is over", async () => {
    const { client, asked } = fakeDaemon(started, started, done);

    expect((await client.execute("sandbox:1", request)).result).toEqual(result);
    expect(asked).toEqual([POST, GET, GET]);
  });

  it("sends the call again when its answer was lost, which is safe by its id", async () => {
    const { client, asked } = fakeDaemon(networkError("UND_ERR_SOCKET"), done);

    expect((await client.execute("sandbox:1", request)).result).toEqual(result);
    expect(asked).toEqual([POST, POST]);
  });

  it("asks by id when an answer is lost later", async () => {
    const { client, asked } = fakeDaemon(started, networkError("ECONNRESET"), done);

    await client.execute("sandbox:1", request);

    expect(asked).toEqual([POST, GET, GET]);
  });

  it("sends the call again when a restarted daemon never saw it", async () => {
    const lost = { status: 404, body: { error: { code: "NOT_FOUND", message: "never seen" } } };
    const { client, asked } = fakeDaemon(started, lost, done);

    await client.execute("sandbox:1", request);

    expect(asked).toEqual([POST, GET, POST]);
  });

  it("gives up after three lost answers in a row", async () => {
    const { client, asked } = fakeDaemon(...[1, 2, 3].map(() => networkError("ECONNRESET")));

    await expect(client.execute("sandbox:1", request)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
      details: { exchange: "answer_lost", sent: true },
    });
    expect(asked).toHaveLength(3);
  });

  it("does not try a connection that fails again: that is for the caller to decide", async () => {
    const { client, asked } = fakeDaemon(networkError("ECONNREFUSED"));

    await expect(client.execute("sandbox:1", request)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      details: { exchange: "no_connection", sent: false },
    });
    expect(asked).toHaveLength(1);
  });

  it("gives a silent daemon up after the wait and ten seconds", async () => {
    const { client, clock } = fakeDaemon("silence");
    const outcome = client.execute("sandbox:1", request).catch((error: unknown) => error);

    await clock.advance(30_000);

    expect(await outcome).toMatchObject({ code: "TIMEOUT", retryable: true });
  });

  it("ends with the caller's reason when the caller gives up", async () => {
    const { client, clock } = fakeDaemon("silence");
    const stop = new AbortController();
    const outcome = client
      .execute("sandbox:1", request, stop.signal)
      .catch((error: unknown) => error);
    await clock.advance(0);

    stop.abort(new Error("enough"));

    expect(await outcome).toMatchObject({ message: "enough" });
  });

  it("mends half a surrogate pair that a daemon of somebody else's sends", async () => {
    const odd = { id: request.id, state: "done", result: { ...result, content: "a\u{d83d}" } };
    const { client } = fakeDaemon({ body: odd });

    expect((await client.execute("sandbox:1", request)).result?.content).toBe("a\u{fffd}");
  });
});

describe("answers", () => {
  it.each([
    ["SANDBOX_STALE_EPOCH", 409],
    ["SANDBOX_INPUT_CHANGED", 409],
    ["SANDBOX_BOUND", 403],
    ["UNAUTHENTICATED", 401],
    ["OUTCOME_UNKNOWN", 409],
    ["UNAVAILABLE", 503],
  ])("an error of the daemon keeps its code: %s", async (code, status) => {
    const { client, asked } = fakeDaemon({ status, body: { error: { code, message: "why" } } });

    await expect(client.execute("sandbox:1", request)).rejects.toMatchObject({ code });
    expect(asked).toHaveLength(1);
  });

  it.each([
    { name: "a page", answer: { status: 502, body: "<html>" } },
    { name: "another shape", answer: { body: { state: "odd" } } },
    {
      name: "an unknown code",
      answer: { status: 500, body: { error: { code: "X", message: "" } } },
    },
    { name: "more than a megabyte", answer: { body: "x".repeat(1_100_000) } },
    { name: "nothing", answer: { body: undefined } },
    { name: "another call", answer: { body: { ...done.body, id: "toolu/2" } } },
    {
      name: "a code of the log",
      answer: { status: 409, body: { error: { code: "SESSION_LEASE_LOST", message: "gone" } } },
    },
  ])("what is not a daemon's is told as such: $name", async ({ answer }) => {
    const { client, asked } = fakeDaemon(answer);

    await expect(client.execute("sandbox:1", request)).rejects.toMatchObject({
      code: "INTERNAL",
      details: { exchange: "not_understood", sent: true },
    });
    expect(asked).toHaveLength(1);
  });

  it("a reason of a megabyte is cut", async () => {
    const error = { code: "INPUT_INVALID", message: "x".repeat(900_000) };
    const { client } = fakeDaemon({ status: 400, body: { error } });

    const failure: unknown = await client.execute("sandbox:1", request).catch((e: unknown) => e);

    expect(Error.isError(failure) && failure.message.length).toBeLessThan(2200);
  });
});

describe("a daemon that is never done", () => {
  const cloning = { body: { repositories: [{ name: "app", state: "cloning" }] } };
  const repositories = [{ name: "app", url: "https://git.example/t/app", path: "app" }];
  const wanted = { edgeUrl: "http://10.0.0.9:7080", sandboxToken: "t", repositories };
  const lost = { status: 404, body: { error: { code: "NOT_FOUND", message: "never seen" } } };
  type Client = ReturnType<typeof fakeDaemon>["client"];
  const execute = async (client: Client, signal: AbortSignal) =>
    await client.execute("sandbox:1", request, signal);

  it.each([
    { name: "still running", answers: [started], ask: execute },
    { name: "running, never seen, running", answers: [started, lost], ask: execute },
    {
      name: "still cloning",
      answers: [cloning],
      ask: async (client: Client, signal: AbortSignal) =>
        await client.repositories("sandbox:1", wanted, signal),
    },
  ])("is asked less and less often, and no more after the end: $name", async ({ answers, ask }) => {
    const all = Array.from({ length: 1000 }, (_, n) => answers[n % answers.length] ?? started);
    const { client, asked, clock } = fakeDaemon(...all);
    const stop = new AbortController();
    const ended = ask(client, stop.signal).catch((error: unknown) => error);

    await clock.advance(10_000);
    const soon = asked.length;
    await clock.advance(100_000);
    const later = asked.length - soon;
    stop.abort(new Error("enough"));

    expect(await ended).toMatchObject({ message: "enough" });
    expect([soon <= 10, later <= 12, later >= 8]).toEqual([true, true, true]);
  });

  it("leaves repositories undecided after an hour", async () => {
    const { client, clock } = fakeDaemon(...Array.from({ length: 1000 }, () => cloning));
    const states = client.repositories("sandbox:1", wanted);

    await clock.advance(3_700_000);

    expect(await states).toEqual([{ name: "app", state: "cloning" }]);
  });

  it("gives one state for each repository, with a short reason, whatever it sends", async () => {
    const failed = { name: "app", state: "failed", message: "x".repeat(50_000) };
    const many = Array.from({ length: 5000 }, () => ({ name: "odd", state: "ready" }));
    const { client } = fakeDaemon({ body: { repositories: [failed, ...many] } });
    const docs = { name: "docs", url: "https://git.example/t/docs", path: "docs" };

    const states = await client.repositories("sandbox:1", {
      ...wanted,
      repositories: [...repositories, docs],
    });

    expect(states).toEqual([
      { name: "app", state: "failed", message: `${"x".repeat(2000)}…` },
      { name: "docs", state: "failed", message: "the sandbox did not say what became of it" },
    ]);
  });
});
