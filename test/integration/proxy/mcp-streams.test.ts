import { writeFile } from "node:fs/promises";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { POD, type Rig, SESSION } from "./rig.ts";
import { call, result, secretsWith, sessionWithServer } from "./session-with-server.ts";

const TOKEN = "CNRY-streams-token-6Tq2Wd8Z";

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const messageEvent = (message: unknown) => `data: ${JSON.stringify(message)}\n\n`;

/** A stream through the proxy that the server holds open, and all that has come out of it. */
async function openStream(method: "GET" | "POST") {
  let push = (_message: unknown) => {};
  const { rig, upstream } = await sessionWithServer(cleanups, TOKEN, (_received, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": open\n\n");
    push = (message) => response.write(messageEvent(message));
  });
  const answer =
    method === "POST"
      ? await rig.post("/mcp/docs", call("echo"))
      : await fetch(`${rig.url}/mcp/docs`, {
          headers: { authorization: `Bearer ${await rig.token()}` },
        });
  const stream = { rig, upstream, text: "", end: "", push: (message: unknown) => push(message) };
  void read(answer, stream);
  await eventually("the beginning", () => stream.text !== "");
  return stream;
}

async function read(answer: Response, into: { text: string; end: string }): Promise<void> {
  try {
    for await (const chunk of answer.body ?? []) into.text += Buffer.from(chunk).toString("utf8");
    into.end = "ended";
  } catch {
    into.end = "broken off";
  }
}

const changes = {
  revoked: async (rig: Rig) => await writeFile(rig.credentialsFile, "{}"),
  rotated: async (rig: Rig) =>
    await writeFile(rig.credentialsFile, JSON.stringify(secretsWith("CNRY-streams-rotated"))),
  "taken over": async (rig: Rig) => {
    rig.leases.set(SESSION, { token: "lease-2", epoch: 2, owner: "pod-2", terminated: false });
  },
  terminated: async (rig: Rig) => {
    rig.leases.set(SESSION, { token: "lease-1", epoch: 1, owner: POD, terminated: true });
  },
  "without its store": async (rig: Rig) => {
    rig.storeDown = true;
  },
};

describe("a stream of an MCP server", () => {
  it("ends on both sides, within seconds, when what allowed it is gone", async () => {
    const cases = [
      ["GET", "revoked", "broken off"],
      ["GET", "taken over", "broken off"],
      ["GET", "terminated", "broken off"],
      // Its client opens a new one, with the new value.
      ["GET", "rotated", "ended"],
      ["POST", "revoked", "ended"],
      ["POST", "taken over", "ended"],
      ["POST", "terminated", "ended"],
    ] as const;
    const ends = await Promise.all(
      cases.map(async ([method, change]) => {
        const stream = await openStream(method);
        await changes[change](stream.rig);
        await eventually(`the end: ${method} ${change}`, () => stream.end !== "");
        await eventually("the end upstream", () => stream.upstream.aborted === 1);
        await eventually("the record", () => stream.rig.auditLines.length === 1);
        const told = /broken off: .*whether the call had an effect is not known/.test(stream.text);
        return [method, change, stream.end, told];
      }),
    );

    expect(ends).toEqual(
      cases.map(([method, change, end]) => [method, change, end, method === "POST"]),
    );
  }, 30_000);

  it("goes on through an outage, and a call that runs through a rotation", async () => {
    const streams = await Promise.all(
      (
        [
          ["GET", "without its store"],
          ["POST", "without its store"],
          ["POST", "rotated"],
        ] as const
      ).map(async ([method, change]) => {
        const stream = await openStream(method);
        await changes[change](stream.rig);
        return stream;
      }),
    );
    const [listening] = streams;
    await new Promise((resolve) => setTimeout(resolve, 7000));
    listening?.push({ jsonrpc: "2.0", method: "notifications/tools/list_changed" });
    for (const stream of streams.slice(1)) stream.push(result(1, "done"));

    await eventually("the messages", () =>
      streams.every(({ text }) => /list_changed|"done"/.test(text)),
    );
    expect(streams.map(({ end, upstream }) => [end, upstream.aborted])).toEqual([
      ["", 0],
      ["", 0],
      ["", 0],
    ]);
  }, 30_000);
});

describe("an MCP server that makes requests of its own without end", () => {
  /** So many of them in one stream, and then the answer to the call. */
  async function asking(method: "GET" | "POST", times: number) {
    const seen = { refusals: 0, open: 0, most: 0 };
    const session = await sessionWithServer(cleanups, TOKEN, (received, response) => {
      if (received.body.includes('"error"')) {
        seen.refusals += 1;
        seen.open += 1;
        seen.most = Math.max(seen.most, seen.open);
        setTimeout(() => {
          seen.open -= 1;
          response.writeHead(202).end();
        }, 20);
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (let id = 0; id < times; id += 1) {
        response.write(messageEvent({ jsonrpc: "2.0", id, method: "sampling/createMessage" }));
      }
      response.end(messageEvent(result(1, "done")));
    });
    const answer =
      method === "POST"
        ? await session.rig.post("/mcp/docs", call("echo"))
        : await fetch(`${session.rig.url}/mcp/docs`, {
            headers: { authorization: `Bearer ${await session.rig.token()}` },
          });
    const stream = { text: "", end: "" };
    await read(answer, stream);
    return { ...session, seen, stream };
  }

  it("is told sixteen times, one after the other", async () => {
    const { rig, seen, stream } = await asking("POST", 16);

    await eventually("all records", () => rig.auditLines.length === 17);
    expect(seen).toEqual({ refusals: 16, open: 0, most: 1 });
    expect(stream.text).toContain('"done"');
  });

  it("is told no more after that, and its stream ends", async () => {
    const { rig, seen, stream, upstream } = await asking("POST", 500);

    expect(stream.text).toContain("more than 16 requests of its own");
    expect(stream.text).toContain('"UPSTREAM_REFUSED"');
    await eventually("the record of the call", () =>
      rig.auditLines.some((line) => line.includes("tools/call")),
    );
    expect(seen.refusals).toBeLessThanOrEqual(16);
    expect(upstream.received.length).toBe(1 + seen.refusals);
    expect(await rig.registry.metrics()).toContain("drover_proxy_server_requests_total 17");
  });

  it("loses its listening stream as well", async () => {
    const { rig, stream, seen } = await asking("GET", 500);

    expect(stream.end).toBe("broken off");
    await eventually("the record", () =>
      rig.auditLines.some((line) => line.includes('"code":"UPSTREAM_REFUSED"')),
    );
    expect(seen.refusals).toBeLessThanOrEqual(16);
  });

  it("has a record in the audit log for each time that it is told", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN, ({ body }, response) => {
      if (body.includes('"error"')) {
        response.writeHead(202).end();
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (const [id, method] of ["roots/list", TOKEN].entries()) {
        response.write(messageEvent({ jsonrpc: "2.0", id: `theirs-${id}`, method }));
      }
      response.end(messageEvent(result(1, "done")));
    });

    await (await rig.post("/mcp/docs", call("echo"))).text();
    await eventually("the records", () => rig.auditLines.length === 3);

    const records = rig.auditLines.map((line) => JSON.parse(line) as Record<string, unknown>);
    const refusal = {
      role: "mcp",
      sessionId: SESSION,
      server: "docs",
      credential: "main/docs",
      decision: "allow",
      rule: "refusal",
      upstreamStatus: 202,
    };
    expect(records).toEqual([
      expect.objectContaining({ ...refusal, method: "roots/list" }),
      expect.objectContaining({ ...refusal, method: "unknown" }),
      expect.objectContaining({ method: "tools/call", tool: "echo", rule: "always_allow" }),
    ]);
    expect(records[0]).not.toHaveProperty("tool");
    expect(rig.auditLines.join("")).not.toContain(TOKEN);
  });
});
