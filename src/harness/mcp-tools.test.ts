import { describe, expect, it } from "@jest/globals";
import { LIST_LIMITS, ToolList } from "./mcp-tools.ts";

const tool = (name: string, more: object = {}) => ({
  name,
  inputSchema: { type: "object" },
  ...more,
});

describe("the list of a server's tools", () => {
  it("keeps what a model needs", () => {
    const list = new ToolList("docs");

    const next = list.add({
      tools: [
        tool("a", { title: "A", description: "does a", annotations: { readOnlyHint: true } }),
        tool("b", { title: "B" }),
      ],
      nextCursor: "2",
    });

    expect(next).toBe("2");
    expect(list.add({ tools: [] })).toBeUndefined();
    expect(list.listing).toEqual({
      tools: [
        { name: "a", description: "does a", inputSchema: { type: "object" }, readOnly: true },
        { name: "b", description: "B", inputSchema: { type: "object" }, readOnly: false },
      ],
      problems: [],
    });
  });

  it("tells the model what had to go from a schema", () => {
    const list = new ToolList("docs");

    list.add({
      tools: [tool("a", { description: "does a", inputSchema: { anyOf: [{ required: ["x"] }] } })],
    });

    expect(list.listing.tools[0]?.description).toBe(
      'does a\n\nThe input must also satisfy anyOf: [{"required":["x"]}]',
    );
  });

  it("cuts a long description", () => {
    const list = new ToolList("docs");

    list.add({ tools: [tool("a", { description: "x".repeat(1_000_000) })] });

    const { length } = list.listing.tools[0]?.description ?? "";
    expect(length).toBeGreaterThan(LIST_LIMITS.descriptionChars / 2);
    expect(length).toBeLessThanOrEqual(LIST_LIMITS.descriptionChars);
  });

  it.each([
    { what: "tools", page: () => Array.from({ length: 100 }, (_, i) => tool(`t${i}`)) },
    { what: "words", page: () => [tool("t", { description: "x".repeat(1_000_000) })] },
    { what: "pages", page: () => [] },
  ])("ends, whatever the number of $what", ({ page }) => {
    const list = new ToolList("docs");
    let pages = 0;
    let cursor: string | undefined;
    do {
      pages += 1;
      cursor = list.add({ tools: page(), nextCursor: `c${pages}` });
    } while (cursor !== undefined && pages < 10_000);

    expect(pages).toBeLessThanOrEqual(LIST_LIMITS.pages);
    expect(list.listing.tools.length).toBeLessThanOrEqual(LIST_LIMITS.tools);
    expect(list.listing.problems).toEqual([expect.stringContaining("the rest is left out")]);
  });

  it("keeps a bounded amount, and names what it leaves out", () => {
    const list = new ToolList("docs");
    const description = "x".repeat(8000);

    list.add({ tools: Array.from({ length: 300 }, (_, i) => tool(`t${i}`, { description })) });

    expect(JSON.stringify(list.listing.tools).length).toBeLessThan(LIST_LIMITS.keptChars * 1.01);
    expect(list.listing.problems[0]).toMatch(/tool "t\d+" is left out: all tools together/);
    expect(list.listing.problems.length).toBeLessThanOrEqual(20);
  });
});
