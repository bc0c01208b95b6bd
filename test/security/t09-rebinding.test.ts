import { afterEach, describe, expect, it } from "@jest/globals";
import { type Agent, request } from "undici";
import { createGuardedAgent, type Resolve } from "../../src/proxy/dial.ts";
import { Cleanups } from "../cleanups.ts";
import { startUpstream, type Upstream } from "../integration/proxy/rig.ts";
import { call, sessionWithServer, vaultFor } from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T09: whoever controls a name answers one address when it is checked and another when it is dialled,
 * several at once, or one that leads inside in another way of writing. A victim listens on loopback,
 * where only listed servers may be reached.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const SECRET = newMarker("T09");
/** On the public internet by its address; nobody needs to answer there. */
const PUBLIC = "2606:2800:220:1:248:1893:25c8:1946";

/** A resolver that gives its answers in turn, and the last one ever after. */
function agentFor(listed: string[], ...answers: string[][]): { agent: Agent; asked: () => number } {
  let times = 0;
  const resolve: Resolve = (_host, callback) => {
    const addresses = answers[Math.min(times, answers.length - 1)] ?? [];
    times += 1;
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
    );
  };
  const agent = createGuardedAgent({ listed: new Set(listed), resolve });
  cleanups.add(async () => await agent.destroy());
  return { agent, asked: () => times };
}

/** The code of the failure, or "reached". The credential is in the request, as it is in the proxy. */
async function send(url: string, agent: Agent): Promise<string> {
  return await request(url, {
    dispatcher: agent,
    headers: { authorization: `Bearer ${SECRET}` },
    signal: AbortSignal.timeout(3000),
  }).then(
    async ({ body }) => {
      await body.dump();
      return "reached";
    },
    (error: { code?: string; name: string }) => error.code ?? error.name,
  );
}

async function victim(): Promise<Upstream> {
  return await startUpstream(cleanups, (_received, response) => response.end("inside"));
}

describe("a name that leads inside", () => {
  it("is no obstacle for a listed server: the control", async () => {
    const inside = await victim();
    const { agent } = agentFor([`mcp.test:${inside.port}`], ["127.0.0.1"]);

    expect(await send(`http://mcp.test:${inside.port}/`, agent)).toBe("reached");
    expect(inside.received[0]?.headers.authorization).toBe(`Bearer ${SECRET}`);
  });

  it.each([
    ["loopback", ["127.0.0.1"]],
    ["a public address, and then loopback, in one answer", [PUBLIC, "127.0.0.1"]],
    ["loopback, and then a public address, in one answer", ["127.0.0.1", PUBLIC]],
    ["an IPv4 address inside IPv6", ["::ffff:127.0.0.1"]],
    ["the same in hex", ["::ffff:7f00:1"]],
    ["NAT64 of loopback", ["64:ff9b::7f00:1"]],
    ["6to4 of loopback", ["2002:7f00:1::"]],
    ["IPv6 loopback", ["::1"]],
    ["a private network", ["10.0.0.1"]],
    ["a unique local address", ["fd12::1"]],
    ["no address", []],
  ])("is not followed to %s", async (_name, addresses) => {
    const inside = await victim();
    const { agent } = agentFor([], addresses);

    expect(await send(`https://mcp.test:${inside.port}/`, agent)).toBe("ADDRESS_REFUSED");
    expect(inside.received).toEqual([]);
  });

  it.each([
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "168.63.129.16",
    "fd00:ec2::254",
    "::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "2001:0:808:808:0:0:5601:5601",
  ])("is not followed to the metadata service at %s, even for a listed server", async (address) => {
    const { agent } = agentFor(["mcp.test:80"], [address]);

    expect(await send("http://mcp.test/", agent)).toBe("ADDRESS_REFUSED");
  });

  it.each(["0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::7f00:1"])(
    "is not followed to %s, by which systems mean loopback, even for a listed server",
    async (address) => {
      const inside = await victim();
      const { agent } = agentFor([`mcp.test:${inside.port}`], [address]);

      expect(await send(`http://mcp.test:${inside.port}/`, agent)).toBe("ADDRESS_REFUSED");
      expect(inside.connections).toBe(0);
    },
  );

  it("is dialled at the address that was checked: it is not resolved again in between", async () => {
    const inside = await victim();
    // Listed, so that what is dialled is what the resolver said, and nothing else refuses it.
    const { agent, asked } = agentFor(
      [`mcp.test:${inside.port}`],
      ["127.0.0.1"],
      ["169.254.169.254"],
    );

    expect(await send(`http://mcp.test:${inside.port}/`, agent)).toBe("reached");
    expect(asked()).toBe(1);
  });

  it("is not dialled inside when only its first answer was public", async () => {
    const inside = await victim();
    const { agent, asked } = agentFor([], [PUBLIC], ["127.0.0.1"]);

    const outcome = await send(`https://mcp.test:${inside.port}/`, agent);

    expect(outcome).not.toBe("reached");
    expect(asked()).toBe(1);
    expect(inside.received).toEqual([]);
    expect(inside.connections).toBe(0);
  });

  it("is checked again for every new connection", async () => {
    const inside = await victim();
    const host = `mcp.test:${inside.port}`;
    const { agent } = agentFor([host], ["127.0.0.1"], ["169.254.169.254"]);

    const first = await send(`http://${host}/`, agent);
    inside.dropConnections();
    const second = await send(`http://${host}/`, agent);

    expect([first, second]).toEqual(["reached", "ADDRESS_REFUSED"]);
    expect(inside.received).toHaveLength(1);
  });

  it.each([
    "https://localhost",
    "https://127.0.0.1",
    "https://[::1]",
    "https://[::ffff:7f00:1]",
    "http://localhost",
  ])(
    "is refused through the whole proxy: %s, whose server another pool may list",
    async (origin) => {
      const inside = await victim();
      const url = `${origin}:${inside.port}/mcp`;
      const { rig } = await sessionWithServer(cleanups, SECRET, undefined, {
        inClusterServers: ["mcp.test:1"],
        agent: {
          mcpServers: [{ name: "docs", url }],
          tools: [
            {
              type: "mcp_toolset",
              mcpServerName: "docs",
              defaultConfig: { permissionPolicy: "always_allow" },
            },
          ],
        },
        vaults: vaultFor(url),
      });
      const sweep = new ProxySweep(rig, [SECRET]);

      const seen = await sweep.answer(await rig.post("/mcp/docs", call("echo")));

      expect(seen).toContain("ADDRESS_REFUSED");
      expect(inside.connections).toBe(0);
      sweep.stranger("the victim", inside);
      expect(await sweep.found()).toEqual([]);
    },
  );
});
