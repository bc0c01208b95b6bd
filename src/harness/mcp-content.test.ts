import { describe, expect, it } from "@jest/globals";
import { parseExact } from "../protocol/exact-json.ts";
import { contentText } from "./mcp-content.ts";

const resource = (fields: object) => ({ content: [{ type: "resource", resource: fields }] });
const text = (said: string) => ({ type: "text", text: said });

describe("what a model reads of a result", () => {
  it.each([
    { name: "texts", given: { content: [text("a"), text("b")] }, want: "a\nb" },
    {
      name: "the text of a resource",
      given: resource({ uri: "repo://o/r/README.md", mimeType: "text/markdown", text: "# Title" }),
      want: "[resource repo://o/r/README.md (text/markdown)]\n# Title",
    },
    {
      name: "a note of a binary resource",
      given: resource({ uri: "x://y", mimeType: "application/pdf", blob: "JVBERi0xLjQK" }),
      want: "[resource x://y: application/pdf, 9 bytes, not shown]",
    },
    {
      name: "a link",
      given: {
        content: [
          {
            type: "resource_link",
            uri: "https://files.example/report.pdf",
            name: "report.pdf",
            description: "the quarterly\nreport",
          },
        ],
      },
      want: "[link to report.pdf: https://files.example/report.pdf; the quarterly report]",
    },
    {
      name: "a note of an image",
      given: { content: [{ type: "image", data: "AAAA", mimeType: "image/png" }] },
      want: "[image image/png, 3 bytes, not shown]",
    },
    {
      name: "structured content alone",
      given: { content: [], structuredContent: { temperature: 21 } },
      want: '{"temperature":21}',
    },
    {
      name: "structured content beside a text that does not hold it",
      given: { content: [text("1 row")], structuredContent: { rows: [{ id: 7 }] } },
      want: '1 row\n{"rows":[{"id":7}]}',
    },
    {
      name: "structured content beside blank text",
      given: { content: [text("")], structuredContent: { answer: 42 } },
      want: '{"answer":42}',
    },
    {
      name: "structured content once, when the text is the same",
      given: { content: [text('{ "b": 1, "a": [2] }')], structuredContent: { a: [2], b: 1 } },
      want: '{ "b": 1, "a": [2] }',
    },
    {
      name: "structured content that is no object",
      given: { structuredContent: [1, 2] },
      want: "[1,2]",
    },
    {
      name: "a word for kinds of times to come, and for what is none",
      given: { content: [{ type: "hologram" }, 7, { type: "resource" }] },
      want: "[hologram content is not shown]\n[unreadable content]\n[an empty resource]",
    },
    { name: "nothing of nothing", given: {}, want: "" },
  ])("is $name", ({ given, want }) => {
    expect(contentText(given)).toBe(want);
  });

  it("keeps digits", () => {
    const result = { structuredContent: parseExact('{"id":1234567890123456789,"price":10.0}') };

    expect(contentText(result)).toBe('{"id":1234567890123456789,"price":10.0}');
  });
});
