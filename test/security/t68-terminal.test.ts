import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";

/**
 * `drover run` prints what tools and models say. A terminal obeys what is in it: a file that an agent
 * reads could fill the clipboard, clear the screen, or write a good end over a bad one.
 */

const SCRIPT = String.raw`
scenarios:
  evil:
    turns:
      - tools:
          - name: bash
            input: { command: "printf 'a\\033]52;c;Y3VybA==\\007b\\033]0;pwned\\007\\302\\2332J\\302\\2350;t\\302\\234\\nx\\rsession   idle: end_turn\\n\\342\\200\\256gpj.exe\\n'" }
          - name: bash
            input: { command: "for fd in /proc/$PPID/fd/2 /dev/tty; do printf 'tool\\033[2Jtool' > $fd; done 2> /dev/null; printf 'Z\\033[2J\\033[8mhidden\\n' > f" }
      - tools:
          - name: read
            input: { file_path: f }
      - { say: "the model: \e[2J\e[1;1H\e]0;model\a and text\rover \u202eit" }
`;

const MANIFEST = `
apiVersion: drover.dev/v1alpha1
kind: SandboxTemplate
metadata: { name: default }
spec: { image: "drover-sandbox:0.1.0" }
---
apiVersion: drover.dev/v1alpha1
kind: AgentSession
metadata: { name: evil }
spec:
  agent: { model: "scripted:evil", tools: [{ type: agent_toolset_20260401 }] }
  messages: [{ text: "a person may paste \\e[2J too" }]
  sandboxTemplateRef: { name: default }
`;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-terminal-"));
  writeFileSync(join(folder, "script.yaml"), SCRIPT);
  writeFileSync(join(folder, "manifest.yaml"), MANIFEST);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Standard output and standard error together, as a terminal gets them. */
async function drover(...args: string[]): Promise<{ code: number | null; text: string }> {
  const program = join(process.cwd(), "src/cmd/drover.ts");
  const child = spawn(process.execPath, [program, ...args], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  }
  await once(child, "close");
  return { code: child.exitCode, text: Buffer.concat(chunks).toString("utf8") };
}

const OBEYED = /[^\P{Cc}\n\t]|[\u202a-\u202e\u2066-\u2069]/u;

it("nothing that a tool, a file, a model or a message says reaches the terminal as a control", async () => {
  const files = ["-f", "manifest.yaml", "--script", "script.yaml", "--data-dir", "data"];

  const { code, text } = await drover("run", "-v", ...files);

  expect(code).toBe(0);
  // The control: all of it was printed, as text.
  for (const shown of [
    String.raw`a\x1b]52;c;Y3VybA==\x07b\x1b]0;pwned\x07\x9b2J\x9d0;t\x9c`,
    String.raw`x\rsession   idle: end_turn`,
    String.raw`\u202egpj.exe`,
    String.raw`Z\x1b[2J\x1b[8mhidden`,
    String.raw`the model: \x1b[2J\x1b[1;1H\x1b]0;model\x07 and text\rover \u202eit`,
    String.raw`a person may paste \x1b[2J too`,
  ]) {
    expect(text).toContain(shown);
  }
  expect(text.split("\n").filter((line) => OBEYED.test(line))).toEqual([]);
  expect(text.match(/^session {3}idle/gm)).toHaveLength(1);
});

it("nor does a mistake in a manifest of somebody else", async () => {
  writeFileSync(
    join(folder, "manifest.yaml"),
    MANIFEST.replace("name: evil", String.raw`name: "\e[2J\x9b2J"`),
  );

  const { code, text } = await drover("run", "-f", "manifest.yaml", "--data-dir", "data");

  expect(code).toBe(1);
  expect(text).toContain(String.raw`\x1b[2J\x9b2J`);
  expect(text).not.toMatch(OBEYED);
});
