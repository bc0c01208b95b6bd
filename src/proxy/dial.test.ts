import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { type Agent, request } from "undici";
import { createGuardedAgent, type Resolve } from "./dial.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function server(): Promise<number> {
  const http = createServer((_request, response) => response.end("reached"));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => await new Promise((resolve) => http.close(resolve)));
  return (http.address() as AddressInfo).port;
}

function agentFor(listed: string[], answers: Record<string, string[][]> = {}) {
  const asked: string[] = [];
  const resolve: Resolve = (host, callback) => {
    asked.push(host);
    const next = answers[host]?.shift() ?? [];
    callback(
      null,
      next.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
    );
  };
  const agent = createGuardedAgent({ listed: new Set(listed), resolve });
  cleanups.push(async () => await agent.destroy());
  return { agent, asked };
}

async function get(url: string, agent: Agent): Promise<string> {
  const answer = await request(url, { dispatcher: agent });
  return await answer.body.text();
}

const refused = expect.objectContaining({ code: "ADDRESS_REFUSED" });

describe("createGuardedAgent", () => {
  it("reaches a listed host over http, at the address that was checked, resolving once", async () => {
    const port = await server();
    const { agent, asked } = agentFor([`mcp.internal:${port}`], {
      "mcp.internal": [["127.0.0.1"], ["169.254.169.254"]],
    });

    expect(await get(`http://mcp.internal:${port}/`, agent)).toBe("reached");
    expect(asked).toEqual(["mcp.internal"]);
  });

  it("refuses plain http to a host that is not listed", async () => {
    const port = await server();
    const { agent, asked } = agentFor([], { "mcp.internal": [["127.0.0.1"]] });

    await expect(get(`http://mcp.internal:${port}/`, agent)).rejects.toEqual(refused);
    expect(asked).toEqual([]);
  });

  it("refuses another port of a listed host", async () => {
    const port = await server();
    const { agent } = agentFor([`mcp.internal:${port + 1}`], { "mcp.internal": [["127.0.0.1"]] });

    await expect(get(`http://mcp.internal:${port}/`, agent)).rejects.toEqual(refused);
  });

  it.each(["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "https://0x7f.1/"])(
    "refuses the literal address %s without dialling",
    async (url) => {
      const { agent, asked } = agentFor([]);

      await expect(get(url, agent)).rejects.toEqual(refused);
      expect(asked).toEqual([]);
    },
  );

  it("refuses a name of which one address of several is private", async () => {
    const { agent } = agentFor([], { "rebind.example": [["93.184.215.14", "127.0.0.1"]] });

    await expect(get("https://rebind.example/", agent)).rejects.toEqual(refused);
  });

  it("refuses a name that resolves to nothing", async () => {
    const { agent } = agentFor([], { "empty.example": [[]] });

    await expect(get("https://empty.example/", agent)).rejects.toEqual(refused);
  });

  it("refuses metadata addresses even for a listed host, without naming them", async () => {
    const { agent } = agentFor(["mcp.internal:80"], { "mcp.internal": [["169.254.169.254"]] });

    await expect(get("http://mcp.internal/", agent)).rejects.toMatchObject({
      code: "ADDRESS_REFUSED",
      message: expect.not.stringContaining("169.254"),
    });
  });
});
