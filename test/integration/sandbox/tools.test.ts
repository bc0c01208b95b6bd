import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { DaemonFixture } from "../sandbox-fixture.ts";

const daemon = new DaemonFixture();
const inWorkspace = (name: string) => join(daemon.workspace, name);
beforeAll(() => daemon.start());
afterAll(() => daemon.remove());

describe("read, write, edit", () => {
  it("write makes folders, edit changes, read gives ranges", async () => {
    await daemon.call("write", { file_path: "a/b.txt", content: "one\ntwo €\nthree\n" });
    await daemon.call("edit", { file_path: "a/b.txt", old_string: "two", new_string: "2" });

    const whole = await daemon.call("read", { file_path: "a/b.txt" });
    const range = await daemon.call("read", { file_path: "a/b.txt", view_range: [2, 2] });

    expect(whole).toEqual({ content: "one\n2 €\nthree\n", is_error: false, outcome: "known" });
    expect(range.content).toBe("2 €");
    expect(statSync(inWorkspace("a/b.txt")).mode & 0o777).toBe(0o600);
  });

  it("edits sent together all take effect", async () => {
    writeFileSync(inWorkspace("many.txt"), "a b c d e");

    await Promise.all(
      ["a", "b", "c", "d", "e"].map((letter) =>
        daemon.call("edit", {
          file_path: "many.txt",
          old_string: letter,
          new_string: letter.toUpperCase(),
        }),
      ),
    );

    expect(readFileSync(inWorkspace("many.txt"), "utf8")).toBe("A B C D E");
  });

  it("an empty file is said to be empty", async () => {
    writeFileSync(inWorkspace("empty.txt"), "");

    const { content } = await daemon.call("read", { file_path: "empty.txt" });

    expect(content).toBe("(the file or range is empty)");
  });

  it("a file too large to show is kept as a copy, cut between characters", async () => {
    writeFileSync(inWorkspace("large.txt"), `x${"🚢".repeat(60_000)}`);

    const { content, is_error } = await daemon.call(
      "read",
      { file_path: "large.txt" },
      "toolu_read",
    );

    expect(is_error).toBe(false);
    expect(content.isWellFormed()).toBe(true);
    expect(content).toContain("240001 bytes in all");
    expect(readFileSync(inWorkspace(".drover/outputs/toolu_read.txt"), "utf8")).toBe(
      `x${"🚢".repeat(60_000)}`,
    );
  });

  it("a FIFO is refused and does not hang", async () => {
    spawnSync("mkfifo", [inWorkspace("pipe")]);

    expect((await daemon.call("read", { file_path: "pipe" })).content).toContain(
      "not a regular file",
    );
    expect((await daemon.call("grep", { pattern: "x", path: "pipe" })).is_error).toBe(true);
  });

  it.each([
    { name: "read", input: { file_path: "/etc/passwd" } },
    { name: "read", input: { file_path: "../journal/journal.jsonl" } },
    { name: "read", input: { file_path: "link/journal.jsonl" } },
    { name: "write", input: { file_path: "link/journal.jsonl", content: "" } },
    { name: "edit", input: { file_path: "link/x", old_string: "a", new_string: "b" } },
    { name: "grep", input: { pattern: "bound", path: "link" } },
    { name: "glob", input: { pattern: "*", path: "link" } },
  ])("$name outside the workspace is refused: $input", async ({ name, input }) => {
    symlinkIfAbsent(daemon.journal, inWorkspace("link"));

    const result = await daemon.call(name, input);

    expect(result.is_error).toBe(true);
    expect(result.content).toContain("outside the session's working directory");
  });
});

describe("bytes of a file", () => {
  it.each([
    { name: "Latin-1", file: "78203d20e90a793d320a", after: "78203d20e90a793d330a" },
    { name: "a byte order mark and CRLF", file: "efbbbf793d320d0a", after: "efbbbf793d330d0a" },
    { name: "UTF-16: refused", file: "fffe79003d003200", after: "fffe79003d003200" },
  ])("survive an edit beside them: $name", async ({ file, after }) => {
    writeFileSync(inWorkspace("bytes"), Buffer.from(file, "hex"), { mode: 0o755 });
    const input = { file_path: "bytes", old_string: "y=2", new_string: "y=3" };

    const result = await daemon.call("edit", input);

    expect(readFileSync(inWorkspace("bytes")).toString("hex")).toBe(after);
    expect(result.is_error).toBe(file === after);
    expect(result.content).toMatch(
      file === after ? /^edit: bytes is UTF-16 text/ : /^edited bytes/,
    );
    expect(statSync(inWorkspace("bytes")).mode & 0o777).toBe(0o755);
  });

  it("that are not UTF-8 are said to be so when they are read", async () => {
    writeFileSync(inWorkspace("latin1"), Buffer.from("caf\xe9", "latin1"));

    const { content } = await daemon.call("read", { file_path: "latin1" });

    expect(content).toMatch(/^caf\u{fffd}\n\(this is not UTF-8 text: /u);
  });

  it("CRLF takes a search text with LF and stays", async () => {
    writeFileSync(inWorkspace("win.txt"), "one\r\ntwo\r\nthree\r\n");

    await daemon.call("edit", {
      file_path: "win.txt",
      old_string: "one\ntwo",
      new_string: "ONE\nTWO",
    });

    expect(readFileSync(inWorkspace("win.txt"), "utf8")).toBe("ONE\r\nTWO\r\nthree\r\n");
  });

  it("of a range that is too large are refused with what to do", async () => {
    writeFileSync(inWorkspace("long"), `${"x".repeat(300_000)}\nshort\n`);
    const read = (view_range?: number[]) => daemon.call("read", { file_path: "long", view_range });

    expect((await read()).content).toContain("Use the view_range parameter");
    expect((await read([1, 1])).content).toContain("line 1 of long alone exceeds");
    expect((await read([1, 0])).content).toContain("Narrow the view_range");
    expect((await read([2, -1])).content).toBe("short\n");
  });
});

describe("links", () => {
  it("inside the workspace are followed: a file, a folder, an absolute one, one to a new file", async () => {
    mkdirSync(inWorkspace("real/deep"), { recursive: true });
    writeFileSync(inWorkspace("real/deep/a.txt"), "a");
    symlinkIfAbsent("deep", inWorkspace("real/near"));
    symlinkIfAbsent(inWorkspace("real/deep"), inWorkspace("far"));
    symlinkIfAbsent("../real/near/a.txt", inWorkspace("src-a.txt"));
    symlinkIfAbsent("real/deep/../near/new.txt", inWorkspace("new.txt"));

    await daemon.call("edit", { file_path: "far/a.txt", old_string: "a", new_string: "b" });
    await daemon.call("write", { file_path: "new.txt", content: "new" });

    expect((await daemon.call("read", { file_path: "real/near/a.txt" })).content).toBe("b");
    expect(readFileSync(inWorkspace("real/deep/new.txt"), "utf8")).toBe("new");
    expect((await daemon.call("grep", { pattern: "b", path: "far" })).content).toContain(
      "a.txt:1:b",
    );
    expect((await daemon.call("read", { file_path: "src-a.txt" })).content).toContain("outside");
  });

  it("in a ring are refused", async () => {
    symlinkIfAbsent("ring", inWorkspace("ring"));

    const { content } = await daemon.call("read", { file_path: "ring/x" });

    expect(content).toBe("read: ring/x: too many levels of symbolic links");
  });
});

describe("what is easily left out", () => {
  beforeAll(async () => {
    await daemon.bash(
      [
        "mkdir -p tree/.github tree/dist tree/app/'[id]' tree/node_modules/x tree/.git && cd tree",
        "echo dist >.gitignore; echo treasure | tee .env .github/w.yml dist/x.js 'app/[id]/page.tsx'",
        "echo treasure | tee node_modules/x/i.js .git/config; cd ..",
      ].join("\n"),
    );
  });
  const found = ({ content }: { content: string }) =>
    content
      .split("\n")
      .map((line) => line.replace(`${daemon.workspace}/tree/`, "").replace(/:1:treasure$/, ""))
      .toSorted();
  const plain = [".env", ".github/w.yml", "app/[id]/page.tsx", "dist/x.js"];
  const note = expect.stringMatching(/^\(\.git and node_modules left out; name /);

  it("glob finds hidden and ignored files, and says which folders it left out", async () => {
    const result = await daemon.call("glob", { pattern: "tree/**/*" });

    expect(found(result)).toEqual([
      note,
      ...plain.slice(0, 1),
      ".github/w.yml",
      ".gitignore",
      ...plain.slice(2),
    ]);
  });

  it("grep searches hidden and ignored files, and says which folders it left out", async () => {
    const result = await daemon.call("grep", { pattern: "treas.re", path: "tree" });

    expect(found(result)).toEqual([note, ...plain]);
  });

  it.each([
    { name: "glob", input: { pattern: "tree/node_modules/**/*.js" } },
    { name: "glob", input: { pattern: "**/*.js", path: "tree/node_modules" } },
    { name: "grep", input: { pattern: "treasure", path: "tree/node_modules" } },
  ])("a folder that is named is searched: $name $input", async ({ name, input }) => {
    expect(found(await daemon.call(name, input))).toEqual(["node_modules/x/i.js"]);
  });

  it.each(["tree/app/[id]/*.tsx", "tree/app/\\[id\\]/*.tsx", "tree/**/page.{ts,tsx}"])(
    "glob finds a folder with brackets in its name: %s",
    async (pattern) => {
      const result = await daemon.call("glob", { pattern });

      expect(found(result).filter((line) => !line.startsWith("("))).toEqual(["app/[id]/page.tsx"]);
    },
  );

  it("grep of one file gives its path", async () => {
    const result = await daemon.call("grep", { pattern: "t", path: "tree/app/[id]/page.tsx" });

    expect(found(result)).toEqual(["app/[id]/page.tsx"]);
  });
});

describe("glob and grep", () => {
  it("find files and lines", async () => {
    mkdirSync(inWorkspace("src/deep"), { recursive: true });
    writeFileSync(inWorkspace("src/deep/x.ts"), "const needle = 1;\nother\n");

    const glob = await daemon.call("glob", { pattern: "src/**/*.ts" });
    const grep = await daemon.call("grep", { pattern: "needle\\s=", path: "src" });

    expect(glob.content).toBe(inWorkspace("src/deep/x.ts"));
    expect(grep.content).toBe(`${inWorkspace("src/deep/x.ts")}:1:const needle = 1;`);
  });

  it("say so when nothing is found, and what is wrong with a pattern", async () => {
    expect(
      (await daemon.call("grep", { pattern: "no-such-text-at-all", path: "src" })).content,
    ).toBe("no matches");
    const bad = await daemon.call("grep", { pattern: "(", path: "src" });
    expect(bad).toMatchObject({ is_error: true });
    expect(bad.content).toMatch(/^grep: .*(regex|unclosed)/i);
  });

  it("grep keeps characters whole that span its reads", async () => {
    writeFileSync(inWorkspace("ships.txt"), `x${"🚢".repeat(100)}\n`.repeat(200));

    const { content } = await daemon.call("grep", { pattern: "x", path: "ships.txt" });

    expect(content).not.toContain("\u{fffd}");
    expect(content.split("\n").filter((line) => line.includes(":x"))).toHaveLength(200);
  });

  it("grep ends a search with too many matches at a whole line and says so", async () => {
    writeFileSync(inWorkspace("matches.txt"), `${"y🚢".repeat(20)}\n`.repeat(20_000));

    const { content } = await daemon.call("grep", { pattern: "y", path: "matches.txt" });

    expect(content).toMatch(/🚢\n\(more matches than are shown; narrow the pattern or path\)$/);
    expect(content.isWellFormed()).toBe(true);
  });
});

describe("an input that does not fit", () => {
  it.each([
    { name: "bash", input: { command: 5 }, field: "`command`" },
    { name: "bash", input: {}, field: "`command`" },
    { name: "bash", input: { command: "true", timeout_ms: -1 }, field: "`timeout_ms`" },
    { name: "bash", input: { command: "true", timeout_ms: "soon" }, field: "`timeout_ms`" },
    { name: "bash", input: { command: "a\0b" }, field: "`command`" },
    { name: "read", input: {}, field: "`file_path`" },
    { name: "read", input: { file_path: "x", view_range: [1] }, field: "`view_range`" },
    { name: "write", input: { file_path: "x" }, field: "`content`" },
    {
      name: "edit",
      input: { file_path: "x", old_string: "", new_string: "" },
      field: "`old_string`",
    },
    { name: "glob", input: { pattern: 1 }, field: "`pattern`" },
    { name: "grep", input: { pattern: "" }, field: "`pattern`" },
  ])("is answered with the field: $name $input", async ({ name, input, field }) => {
    const result = await daemon.call(name, input);

    expect(result).toMatchObject({ is_error: true, outcome: "known" });
    expect(result.content).toContain(field);
  });

  it("with half a surrogate pair gives a result that is well-formed", async () => {
    const result = await daemon.call("read", { file_path: "a\u{d83d}" });

    expect(result.is_error).toBe(true);
    expect(result.content.isWellFormed()).toBe(true);
  });

  it("with more than is needed is taken", async () => {
    const result = await daemon.call("bash", { command: "echo x", description: "prints x" });

    expect(result.content).toBe("x");
  });
});

it("the daemon tells which tools it has", async () => {
  const tools = await daemon.client().tools(daemon.address);

  expect(tools.map((tool) => tool.name)).toEqual(["bash", "read", "write", "edit", "glob", "grep"]);
});

function symlinkIfAbsent(target: string, path: string): void {
  try {
    symlinkSync(target, path);
  } catch {
    // An earlier row made it.
  }
}
