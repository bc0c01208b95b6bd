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
  ])("what is not a daemon's is an INTERNAL error: $name", async ({ answer }) => {
    const { client } = fakeDaemon(answer);

    await expect(client.execute("sandbox:1", request)).rejects.toMatchObject({ code: "INTERNAL" });
  });
});
