import { describe, expect, it } from "@jest/globals";
import { matchEntry, parseServerUrl } from "./url-match.ts";

function vault(name: string, ...urls: string[]) {
  return { name, entries: urls.map((mcpServerUrl, i) => ({ name: `e${i}`, mcpServerUrl })) };
}

describe("parseServerUrl", () => {
  it.each([
    ["https://Mcp.Example.com/a/", "https://mcp.example.com:443/a"],
    ["https://mcp.example.com:443/a#part", "https://mcp.example.com/a"],
    ["https://mcp.example.com", "https://mcp.example.com/"],
    ["http://mcp.example.com:80/x", "http://mcp.example.com/x"],
    ["https://b%C3%BCcher.example/x", "https://xn--bcher-kva.example/x"],
  ])("takes %s and %s for the same server", (a, b) => {
    expect(parseServerUrl(a)).toEqual(parseServerUrl(b));
  });

  it.each([
    ["https://mcp.example.com/a", "https://mcp.example.com/A"],
    ["https://mcp.example.com/a", "https://mcp.example.com/a//"],
    ["https://mcp.example.com/a", "http://mcp.example.com/a"],
    ["https://mcp.example.com/a", "https://mcp.example.com:8443/a"],
    ["https://mcp.example.com/a", "https://mcp.example.com/a?x=1"],
    ["https://mcp.example.com/a%2Fb", "https://mcp.example.com/a/b"],
  ])("keeps %s and %s apart", (a, b) => {
    expect(parseServerUrl(a)).not.toEqual(parseServerUrl(b));
  });

  it.each([
    "https://user:secret@mcp.example.com/",
    "https:user:secret@mcp.example.com/",
    "https://@mcp.example.com/",
    "https://mcp.example.com\\@evil.example/",
    "https://mcp.example.com./",
    "https://mcp.exam ple.com/",
    "https://mcp.example.com/\u0000",
    "https://mcp_x.example.com/",
    "ftp://mcp.example.com/",
    "not a url",
  ])("refuses %j without repeating it", (text) => {
    expect(() => parseServerUrl(text)).toThrow(
      expect.objectContaining({
        code: "INPUT_INVALID",
        message: expect.not.stringContaining("secret"),
      }),
    );
  });
});

const urlOf = ({ mcpServerUrl }: { mcpServerUrl: string }) => mcpServerUrl;

describe("matchEntry", () => {
  const server = parseServerUrl("https://mcp.example.com/tools");

  it("takes the first equal entry in the order of the vaults", () => {
    const match = matchEntry(
      server,
      [
        vault("a", "https://other.example/tools", "https://mcp.example.com/tools/"),
        vault("b", "https://mcp.example.com/tools"),
      ],
      urlOf,
    );

    expect(match).toMatchObject({ found: true, vault: "a", entry: { name: "e1" } });
  });

  it.each([
    ["https://mcp.example.com/other", "the path differs"],
    ["https://mcp.example.com/Tools", "upper and lower case"],
    ["https://mcp.example.com:8443/tools", "the port differs"],
    ["http://mcp.example.com:443/tools", "the scheme differs"],
    ["https://mcp.example.com/tools?key=hunter2", "the query differs"],
    ["https://example.com/tools", "the host differs"],
    ["https://eu.mcp.example.com/tools", "the host differs"],
    ["https://me:pass@mcp.example.com/tools", "cannot be used"],
  ])("names what keeps %s from matching", (url, says) => {
    const match = matchEntry(server, [vault("a", url)], urlOf);

    expect(match).toEqual({
      found: false,
      nearMisses: [expect.stringContaining(`entry "e0" of vault "a": `)],
    });
    expect(JSON.stringify(match)).toContain(says);
    expect(JSON.stringify(match)).not.toMatch(/hunter2|me:pass/);
  });

  it("says nothing of entries for other servers", () => {
    const match = matchEntry(server, [vault("a", "https://unrelated.example/tools")], urlOf);

    expect(match).toEqual({ found: false, nearMisses: [] });
  });
});
