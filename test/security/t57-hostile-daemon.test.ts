import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { sessionRepository } from "../../src/api/agent-session.ts";
import type { SandboxClient } from "../../src/protocol/sandbox-client.ts";
import type { SessionEvent } from "../../src/protocol/session-event.ts";
import { eventsOf, HarnessBed } from "../integration/harness-bed.ts";

/**
 * T57: a sandbox whose daemon is the attacker's answers the real worker as it likes. It must cost the
 * worker little, and its own session no more than tool errors that the model reads.
 */

const SCRIPT = `
scenarios:
  go:
    turns:
      - tools: [{ name: bash, input: { command: "echo hi" } }]
      - say: done
`;
const FAT = "x".repeat(900_000);
const APP = sessionRepository.parse({ name: "app", url: "https://git.example/t/app" });

type Answer = (
  response: ServerResponse,
  asked: { id: string; path: string; json: (status: number, body: unknown) => void },
) => void;

let answer: Answer = () => {};
let hits = 0;
let daemon: Server;
let rig: HarnessBed;

beforeAll(async () => {
  daemon = createServer((request, response) => {
    hits += 1;
    void respond(request, response);
  });
  await new Promise<void>((resolve) => daemon.listen(0, "127.0.0.1", resolve));
  const { port } = daemon.address() as AddressInfo;
  rig = new HarnessBed();
  rig.edge = { url: () => Promise.resolve("http://127.0.0.1:9") };
  await rig.start(SCRIPT);
  const options = { failureBackoff: { baseMs: 100, maxMs: 500 } };
  rig.startWorker({ options, sandboxClient: (client) => at(client, `127.0.0.1:${port}`) });
});

afterAll(async () => {
  daemon?.closeAllConnections();
  daemon?.close();
  await rig?.stop();
});

/** The real client, led to the attacker's daemon. */
function at(client: SandboxClient, address: string): SandboxClient {
  return {
    execute: (_, ...rest) => client.execute(address, ...rest),
    result: (_, ...rest) => client.result(address, ...rest),
    cancel: (_, ...rest) => client.cancel(address, ...rest),
    ack: (_, ...rest) => client.ack(address, ...rest),
    repositories: (_, ...rest) => client.repositories(address, ...rest),
    tools: (_, ...rest) => client.tools(address, ...rest),
  };
}

async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  const path = (request.url ?? "").split("?")[0] ?? "";
  const named = /"id":"([^"]+)"/.exec(body)?.[1] ?? decodeURIComponent(path.split("/")[3] ?? "");
  const json = (status: number, value: unknown) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
  };
  answer(response, { id: named, path, json });
}

/** Repositories are there, and calls are answered in this way. */
function calls(work: Answer): Answer {
  return (response, asked) => {
    if (asked.path !== "/v1/repositories") return work(response, asked);
    return asked.json(200, { repositories: [{ name: "app", state: "ready" }] });
  };
}

const result = { content: "hi", is_error: false, outcome: "known" };
const done: Answer = (_, { id, json }) => json(200, { id, state: "done", result });

async function sessionWith(hostile: Answer) {
  answer = hostile;
  hits = 0;
  return await rig.createSession("go", { model: "scripted:go" }, [APP]);
}

async function idle(ref: Awaited<ReturnType<typeof sessionWith>>) {
  const isIdle = (events: SessionEvent[]) => eventsOf(events, "session.status_idle").length > 0;
  return await rig.until(ref, "idle", isIdle, 40_000);
}

describe("a daemon that always says `not yet` is asked a few times, then less and less often", () => {
  it.each([
    {
      name: "cloning",
      hostile: ((_, { json }) =>
        json(200, { repositories: [{ name: "app", state: "cloning" }] })) satisfies Answer,
    },
    {
      name: "started",
      hostile: calls((_, { id, json }) => json(200, { id, state: "started" })),
    },
  ])("$name", async ({ hostile }) => {
    const ref = await sessionWith(hostile);
    await rig.until(ref, "the first question", () => hits > 0, 40_000);
    await new Promise((resolve) => setTimeout(resolve, 6000));

    expect(hits).toBeGreaterThan(2);
    expect(hits).toBeLessThan(15);
    // Its own user can end it.
    await rig.send(ref, "user.interrupt", {});
    await idle(ref);
  });
});

describe("an answer that is not a daemon's is a tool error, and the session goes on", () => {
  it.each<{ name: string; hostile: Answer }>([
    { name: "a page", hostile: calls((response) => response.writeHead(502).end("<html>")) },
    { name: "nothing", hostile: calls((response) => response.writeHead(200).end()) },
    { name: "another shape", hostile: calls((_, { json }) => json(200, [1, 2])) },
    {
      name: "the answer for another call",
      hostile: calls((_, { json }) => json(200, { id: "toolu_other", state: "done", result })),
    },
    {
      name: "more than it may send",
      hostile: calls((_, { id, json }) =>
        json(200, { id, state: "done", result: { ...result, content: FAT + FAT } }),
      ),
    },
    ...["SESSION_LEASE_LOST", "SANDBOX_STALE_EPOCH", "SESSION_CLOSED", "INTERNAL", "FORBIDDEN"].map(
      (code) => ({
        name: `the error ${code}`,
        hostile: calls((_, { json }) => json(409, { error: { code, message: "no" } })),
      }),
    ),
    {
      name: "an error of a megabyte",
      hostile: calls((_, { json }) =>
        json(400, { error: { code: "INPUT_INVALID", message: FAT } }),
      ),
    },
    {
      name: "rubbish about repositories",
      hostile: (_, { json }) => json(200, { repositories: "all" }),
    },
  ])("$name", async ({ hostile }) => {
    const ref = await sessionWith(hostile);

    const events = await idle(ref);

    const results = eventsOf(events, "tool.result").map(({ data }) => data);
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({ is_error: true });
    expect(results[0]?.content.length).toBeLessThan(3000);
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
    expect(hits).toBeLessThan(30);
  });
});

describe("a reason of a megabyte for a repository that cannot be cloned", () => {
  it.each([
    { name: "of blanks, with a letter at its end", message: `${" ".repeat(900_000)}x` },
    { name: "of letters", message: FAT },
  ])("$name: is cut, and holds nobody up", async ({ message }) => {
    const stall = watchStalls();
    const ref = await sessionWith((response, asked) => {
      if (asked.path !== "/v1/repositories") return done(response, asked);
      return asked.json(200, { repositories: [{ name: "app", state: "failed", message }] });
    });

    const events = await idle(ref);

    expect(stall.end()).toBeLessThan(2000);
    expect(eventsOf(events, "tool.result")[0]?.data.content.length).toBeLessThan(3000);
    expect(eventsOf(events, "session.error")[0]?.data.message.length).toBeLessThan(3000);
  });
});

/** The longest time in which the event loop of the worker, which is this one, stood still. */
function watchStalls() {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 10);
  return {
    end: () => {
      clearInterval(timer);
      return longest;
    },
  };
}
