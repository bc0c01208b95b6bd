import { setImmediate as turn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../test/builders/snapshot.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { Registry } from "../runtime/metrics.ts";
import { Secret } from "../runtime/secret.ts";
import { createProxyMetrics } from "./metrics.ts";
import { SessionCredentials } from "./session-credentials.ts";
import { parseServerUrl } from "./url-match.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

const servers = { docs: "https://docs.example/mcp", wiki: "https://wiki.example/mcp" };

/** A session with the servers `docs` and `wiki`, whose values the test sets. */
function twoServers() {
  const clock = new FakeClock();
  const values: Record<string, string> = { docs: "docs-first", wiki: "wiki-first" };
  const given: WeakRef<Secret>[] = [];
  const credentials = new SessionCredentials({
    source: {
      read: async ({ entry }) => {
        const value = new Secret(values[entry.name] ?? "");
        given.push(new WeakRef(value));
        return { value, version: "1" };
      },
    },
    onRead: () => {},
    clock,
    metrics: createProxyMetrics(new Registry()),
  });
  const entries = Object.entries(servers).map(([name, mcpServerUrl]) => ({
    name,
    mcpServerUrl,
    secretRef: { name, key: "token" },
    header: "Authorization",
    scheme: "Bearer",
  }));
  const snapshot = aSnapshot({ vaults: [{ name: "main", uid: "vault-uid", entries }] });
  const access = async (url: string, id = snapshot.sessionId) =>
    await credentials.forServer(snapshot, { id, token: new Secret("token") }, parseServerUrl(url));
  const use = async (name: keyof typeof servers, id = snapshot.sessionId) => {
    const { credential } = await access(servers[name], id);
    if (credential === undefined) throw new Error(`no entry is for ${name}`);
    return credential;
  };
  return { clock, values, given, access, use };
}

const valuesOf = ({ known }: Awaited<ReturnType<ReturnType<typeof twoServers>["use"]>>) =>
  known().map(({ value }) => value);

describe("the credentials of a session", () => {
  it("are all looked for in what any server answers, also those that were read since", async () => {
    const { clock, values, use } = twoServers();
    const running = await use("docs");
    const list = running.known();
    expect(running.known()).toBe(list);

    values["docs"] = "docs-second";
    await clock.advance(5001);
    await use("docs");
    await use("wiki");

    expect(valuesOf(running)).toEqual(["docs-second", "docs-first", "wiki-first"]);
  });

  it("are looked for in what a server answers that is asked without one", async () => {
    const { access, use } = twoServers();
    const open = await access("https://open.example/mcp");
    expect(open).toMatchObject({ credential: undefined, nearMisses: [] });

    await use("docs");

    expect(open.known().map(({ value }) => value)).toEqual(["docs-first"]);
  });

  it("are looked for in all values that were read for any session that has them", async () => {
    const { clock, values, use } = twoServers();
    const running = await use("docs");
    values["docs"] = "docs-second";
    const other = await use("docs", "sesn_other");
    await clock.advance(5001);

    expect(other.value.reveal()).toBe("docs-second");
    expect(valuesOf(running)).toEqual(["docs-second", "docs-first"]);
    expect(valuesOf(await use("wiki"))).toEqual(["docs-second", "docs-first", "wiki-first"]);
  });

  it("are not looked for in the answers to another session, which has not used them", async () => {
    const { use } = twoServers();
    await use("docs");

    expect(valuesOf(await use("wiki", "sesn_other"))).toEqual(["wiki-first"]);
  });

  it("are known to a request that runs for hours, also when nothing else was used", async () => {
    const { clock, values, use } = twoServers();
    const running = await use("docs");
    values["docs"] = "docs-second";
    await clock.advance(7_200_000);
    await use("docs");

    expect(valuesOf(running)).toEqual(["docs-second", "docs-first"]);
  });

  it("leave the memory ten minutes after their last use", async () => {
    const { clock, given, use } = twoServers();
    await use("docs");
    await clock.advance(599_000);
    await turn();
    collect();
    await turn();
    const before = given.map((secret) => secret.deref() !== undefined);

    await clock.advance(151_000);
    await turn();
    collect();
    await turn();

    expect(before).toEqual([true]);
    expect(given.map((secret) => secret.deref() !== undefined)).toEqual([false]);
  });
});
