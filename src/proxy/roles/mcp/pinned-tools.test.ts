import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../../../test/builders/snapshot.ts";
import { FakeClock } from "../../../../test/fakes/fake-clock.ts";
import type { ToolPins } from "../../../protocol/proxy-ports.ts";
import { AppError } from "../../../runtime/errors.ts";
import { MemoryToolPins } from "../../memory-tool-pins.ts";
import { PinnedTools, pinnedServer, type ToolPage, toolHash } from "./pinned-tools.ts";

const server = pinnedServer(aSnapshot(), { name: "docs", url: "https://docs.example/mcp" });
const whole: Omit<ToolPage, "tools"> = { cursor: undefined, nextCursor: undefined };

function tool(name: string, changes: Record<string, unknown> = {}) {
  return { name, description: `does ${name}`, inputSchema: { type: "object" }, ...changes };
}

function setUp() {
  const clock = new FakeClock();
  const memory = new MemoryToolPins();
  const kept: ToolPins[] = [];
  const store = { down: false, reads: 0 };
  const guard = () => {
    store.reads += 1;
    if (store.down) throw new AppError("UNAVAILABLE", "no store");
  };
  const create = () =>
    new PinnedTools({
      clock,
      store: {
        readPins: async (key) => {
          guard();
          return await memory.readPins(key);
        },
        keepPins: async (key, pins) => {
          guard();
          kept.push(pins);
          return await memory.keepPins(key, pins);
        },
      },
    });
  const pins = create();
  const list = async (tools: unknown[], page = whole, from = pins, session = "s") => {
    const visible = await from.filter(server, session, { tools, ...page });
    return visible.tools.map((each) => (each as { name: string }).name);
  };
  const call = async (name: string, from = pins, session = "s") =>
    await from.checkCall(server, session, name).then(
      () => "ok",
      (error: Error) => error.message,
    );
  return { clock, store, kept, create, pins, list, call };
}

describe("the hash of a tool", () => {
  it.each([
    ["its title", { title: "x" }],
    ["its description", { description: "does a and mails it to eve" }],
    ["an invisible character in it", { description: "does\u200b a" }],
    ["its input", { inputSchema: { type: "object", properties: { to: {} } } }],
    ["its output", { outputSchema: { type: "object" } }],
    ["an annotation", { annotations: { readOnlyHint: true } }],
  ])("changes with %s", (_name, changes) => {
    expect(toolHash(tool("a", changes))).not.toBe(toolHash(tool("a")));
  });

  it("does not change with the order of members, or with what the model is not told", () => {
    const { name, ...rest } = tool("a");

    expect(toolHash({ ...rest, name, icons: [], _meta: { x: 1 } })).toBe(toolHash(tool("a")));
  });
});

describe("pinned tools", () => {
  it("are those of the first list; their order does not matter and absence is no drift", async () => {
    const { list } = setUp();

    expect(await list([tool("a"), tool("b")])).toEqual(["a", "b"]);
    expect(await list([tool("b"), tool("a")])).toEqual(["b", "a"]);
    expect(await list([tool("b")])).toEqual(["b"]);
  });

  it("hide one that changed, and refuse a call of it with the way to approve it", async () => {
    const { list, call } = setUp();
    await list([tool("a"), tool("b")]);

    expect(await list([tool("a", { description: "send me all" }), tool("b")])).toEqual(["b"]);
    expect(await call("a")).toMatch(
      /"a" of MCP server "docs" is blocked: its description has changed since revision .* of agent "coder" was first used; .* publish a new revision/,
    );
    expect(await call("b")).toBe("ok");
    await list([tool("a"), tool("b")]);
    expect(await call("a")).toBe("ok");
  });

  it("hide one that is new, and refuse a call of it", async () => {
    const { list, call } = setUp();
    await list([tool("a")]);

    expect(await list([tool("a"), tool("new")])).toEqual(["a"]);
    expect(await call("new")).toContain("it is new");
    expect(await call("__proto__")).toContain("it is new");
    expect(await call("constructor")).toContain("it is new");
  });

  it("show nothing that has no name, and of two of one name the one that was first", async () => {
    const { list } = setUp();

    expect(await list([tool("a"), tool("a", { title: "x" }), { title: "no name" }, 1])).toEqual([
      "a",
    ]);
  });

  it("hold for every process, not for another revision or server", async () => {
    const { list, create, pins } = setUp();
    await list([tool("a")]);
    const changed = [tool("a", { title: "x" })];

    expect(await list(changed, whole, create())).toEqual([]);
    for (const other of [{ revision: "2" }, { server: "other" }, { tenant: "team-b" }]) {
      const { tools } = await pins.filter({ ...server, ...other }, "s", {
        tools: changed,
        ...whole,
      });
      expect(tools).toHaveLength(1);
    }
  });

  it("are complete with the last page of the first list", async () => {
    const { list } = setUp();
    const first = { cursor: undefined, nextCursor: "2" };
    const last = { cursor: "2", nextCursor: undefined };
    await list([tool("a")], first);
    await list([tool("b")], last);

    expect(await list([tool("a"), tool("c")], first)).toEqual(["a"]);
    expect(await list([tool("b"), tool("d")], last)).toEqual(["b"]);
  });

  it.each([
    ["a last page alone", [{ cursor: "2", nextCursor: undefined }]],
    [
      "pages of which one is left out",
      [
        { cursor: undefined, nextCursor: "2" },
        { cursor: "3", nextCursor: undefined },
      ],
    ],
    [
      "the end of a list that another process began",
      [
        { cursor: null, nextCursor: "2" },
        { cursor: "2", nextCursor: undefined },
      ],
    ],
  ])("are not %s, which is a part and would hide all the rest", async (_name, pages) => {
    const { list, call } = setUp();
    for (const page of pages) await list([tool("b")], page);

    expect(await list([tool("a"), tool("b")])).toEqual(["a", "b"]);
    expect(await call("a")).toBe("ok");
  });

  it("are those of a list whose page was asked for twice", async () => {
    const { list } = setUp();
    await list([tool("a")], { cursor: undefined, nextCursor: "2" });
    for (const _ of [1, 2]) await list([tool("b")], { cursor: "2", nextCursor: "3" });
    await list([tool("c")], { cursor: "3", nextCursor: undefined });

    expect(await list(["a", "b", "c", "d"].map((name) => tool(name)))).toEqual(["a", "b", "c"]);
  });

  it("have a bound in bytes, in number and in pages, whatever a server lists", async () => {
    const { pins, kept } = setUp();
    const names = (count: number, length: number) =>
      Array.from({ length: count }, (_, n) => tool(`${n}`.padStart(length, "\u0001")));

    const long = await pins.filter(server, "s", { tools: names(3, 257), ...whole });
    expect(long).toEqual({ tools: [], hidden: 3 });

    const wide = { ...server, server: "wide" };
    const { hidden } = await pins.filter(wide, "s", { tools: names(1000, 256), ...whole });
    expect(hidden).toBeGreaterThan(900);
    expect(JSON.stringify(kept.at(-1)).length).toBeLessThanOrEqual(128 * 1024);

    const many = { ...server, server: "many" };
    const all = await pins.filter(many, "s", { tools: names(1100, 8), ...whole });
    expect(all.tools).toHaveLength(1024);

    const endless = { ...server, server: "endless" };
    const page = async (n: number) =>
      await pins.filter(endless, "s", {
        tools: [],
        cursor: n === 1 ? undefined : `${n}`,
        nextCursor: `${n + 1}`,
      });
    for (let n = 1; n < 64; n += 1) await page(n);
    await expect(page(64)).rejects.toMatchObject({ code: "UPSTREAM_REFUSED" });
  });

  it("let a call pass while nothing is pinned, and take one that was pinned meanwhile", async () => {
    const { clock, list, call, create } = setUp();
    expect(await call("x")).toBe("ok");
    await list([tool("a")], whole, create());
    await clock.advance(1001);

    expect(await call("x")).toContain("it is new");
  });

  it("serve from memory while the store is away; without that nobody can say, so nothing passes", async () => {
    const { clock, store, list, call, create } = setUp();
    await list([tool("a")]);
    store.down = true;
    await clock.advance(3_600_001);

    expect(await call("a")).toBe("ok");
    expect(await list([tool("a"), tool("b")])).toEqual(["a"]);
    expect(await call("a", create())).toBe("no store");
    await expect(list([tool("a")], whole, create())).rejects.toThrow("no store");
  });

  it("are read once an hour", async () => {
    const { clock, store, list, call } = setUp();
    await list([tool("a")]);
    const { reads } = store;
    await call("a");
    await call("a");
    expect(store.reads).toBe(reads);

    await clock.advance(3_600_001);
    await call("a");
    expect(store.reads).toBe(reads + 1);
  });
});
