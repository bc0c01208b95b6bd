import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";

/** `drover run` as a person runs it: a process of its own, real sandboxes, killed and started again. */

const script = `
scenarios:
  effects:
    tokensPerSecond: 40
    turns:
      - say: "One step, then the next. "
        repeat: 3
        tools: [{ name: bash, input: { command: "echo 1 >> effects.txt" } }]
      - branches:
          - when: { contains: "Check before repeating" }
            say: I look first.
            tools: [{ name: bash, input: { command: "grep -q 1 effects.txt || echo 1 >> effects.txt" } }]
        say: "And the second step, at leisure. "
        repeat: 3
        tools: [{ name: bash, input: { command: "sleep 1; echo 2 >> effects.txt" } }]
        then: last
      - name: again
        say: The first step is done for certain.
        tools: [{ name: bash, input: { command: "sleep 1; echo 2 >> effects.txt" } }]
      - name: last
        branches:
          - when: { contains: "Check before repeating" }
            say: I look first.
            tools: [{ name: bash, input: { command: "grep -q 2 effects.txt || echo 2 >> effects.txt" } }]
            then: end
        say: What is there now?
        tools: [{ name: bash, input: { command: "cat effects.txt" } }]
      - name: end
        say: All done.
  blue: { turns: [{ say: blue answer }] }
  green: { turns: [{ say: green answer }] }
  long:
    turns:
      - { say: "0123456789 0123456789 0123456789 0123456789", repeat: 4000 }
  fails:
    faults: [{ kind: status, call: 1, times: 1, status: 400 }]
    turns: [{ say: never said }]
`;

const manifest = (scenario: string) => `
apiVersion: drover.dev/v1alpha1
kind: SandboxTemplate
metadata: { name: default }
spec: { image: "drover-sandbox:0.1.0" }
---
apiVersion: drover.dev/v1alpha1
kind: AgentSession
metadata: { name: effects }
spec:
  agent: { model: "scripted:${scenario}", tools: [{ type: agent_toolset_20260401 }] }
  messages: [{ text: Do both steps. }]
  sandboxTemplateRef: { name: default }
`;

const inNamespace = (color: string) => `
apiVersion: drover.dev/v1alpha1
kind: AgentSession
metadata: { name: t, namespace: ${color} }
spec: { agent: { model: "scripted:${color}" }, messages: [{ text: Go. }] }
`;

let folder: string;
let running: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-local-run-"));
  writeFileSync(join(folder, "script.yaml"), script);
});

afterEach(async () => {
  for (const child of running) {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  }
  running = [];
  rmSync(folder, { recursive: true, force: true });
});

interface Run {
  child: ChildProcess;
  output: () => string;
  /** Resolves when the output holds the text. */
  says: (text: string) => Promise<void>;
  ended: Promise<number | null>;
}

const PROGRAM = join(process.cwd(), "src/cmd/drover.ts");
const ARGS = ["run", "-f", "manifest.yaml", "--script", "script.yaml", "--data-dir", "data"];

interface How {
  args?: readonly string[];
  env?: Record<string, string>;
  /** A bash script in which "$@" is the command. */
  wrapped?: string;
}

function drover(text: string, { args = ARGS, env = {}, wrapped }: How = {}): Run {
  writeFileSync(join(folder, "manifest.yaml"), text);
  const command = [process.execPath, PROGRAM, ...args];
  const words = wrapped === undefined ? command : ["bash", "-c", wrapped, "bash", ...command];
  const [program = "", ...rest] = words;
  const child = spawn(program, rest, {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  running.push(child);
  let seen = "";
  const waiting: { text: string; resolve: () => void }[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      seen += chunk.toString("utf8");
      for (const waiter of waiting) if (seen.includes(waiter.text)) waiter.resolve();
    });
  }
  const ended = once(child, "close").then(() => child.exitCode);
  return {
    child,
    output: () => seen,
    says: async (wanted) => {
      const met = new Promise<void>((resolve) => {
        if (seen.includes(wanted)) resolve();
        waiting.push({ text: wanted, resolve });
      });
      const early = ended.then(() => {
        if (!seen.includes(wanted)) throw new Error(`ended without "${wanted}":\n${seen}`);
      });
      await Promise.race([met, early]);
    },
    ended,
  };
}

function linesWith(output: string, word: string): string[] {
  return output.split("\n").filter((line) => line.startsWith(word));
}

describe("drover run", () => {
  it("runs real tools, prints the transcript and ends with 0", async () => {
    const run = drover(manifest("effects"));

    expect(await run.ended).toBe(0);

    const output = run.output();
    expect(linesWith(output, "tool")).toHaveLength(3);
    expect(output).toMatch(/result {4}1\n {10}2\n/);
    expect(output).toContain("session   idle: end_turn");
  });

  it.each([
    { moment: "while the model speaks", text: "user      Do both" },
    { moment: "while the sandbox starts", text: "sandbox   requested" },
    { moment: "between two calls", text: "sandbox   ready" },
    { moment: "in the middle of a command", text: "$ sleep 1" },
  ])("killed $moment and started again, it ends well and repeats no call", async ({ text }) => {
    const first = drover(manifest("effects"));
    await first.says(text);
    first.child.kill("SIGKILL");
    await first.ended;

    const second = drover(manifest("effects"));
    expect(await second.ended).toBe(0);

    const output = second.output();
    expect(output).toContain("resumed: AgentSession effects");
    // The file holds each step once, whoever wrote it.
    expect(output).toMatch(/(result {4}1\n {10}2\n)|All done/);
    const calls = readIntents();
    expect(new Set(calls).size).toBe(calls.length);
    // With the transcript, so that a failure tells its story.
    if (effects() !== "1\n2\n")
      throw new Error(`effects ${JSON.stringify(effects())} after:\n${first.output()}\n${output}`);
  });

  it("a finished session starts anew, with a log of its own", async () => {
    const first = drover(manifest("effects"));
    await first.ended;
    const second = drover(manifest("effects"));
    await second.ended;

    const id = (output: string) => /\((sesn_\w+)\)/.exec(output)?.[1];
    expect(id(first.output())).toBeDefined();
    expect(id(second.output())).not.toBe(id(first.output()));
    expect(second.output()).not.toContain("resumed");
  });

  it("SIGTERM hands the session over: the next run goes on", async () => {
    const first = drover(manifest("effects"));
    await first.says("sandbox   ready");
    first.child.kill("SIGTERM");
    expect(await first.ended).toBe(130);

    const second = drover(manifest("effects"));
    expect(await second.ended).toBe(0);
    expect(second.output()).toContain("resumed: AgentSession effects");
    expect(effects()).toBe("1\n2\n");
  });

  it("two sessions of one name in two namespaces are two", async () => {
    const run = drover(`${inNamespace("blue")}---${inNamespace("green")}`);

    expect(await run.ended).toBe(0);
    expect(linesWith(run.output(), "model")).toEqual([
      "model     blue answer",
      "model     green answer",
    ]);
    expect(linesWith(run.output(), "──").map((line) => line.split(" (")[0])).toEqual([
      "── AgentSession blue/t",
      "── AgentSession green/t",
    ]);
  });

  it("a List stands for its items", async () => {
    const items = ["blue", "green"].map((color) => inNamespace(color).replaceAll("\n", "\n    "));
    const run = drover(`apiVersion: v1\nkind: List\nitems:\n  -${items.join("\n  -")}\n`);

    expect(await run.ended).toBe(0);
    expect(linesWith(run.output(), "model")).toHaveLength(2);
  });

  it("a reader that goes away ends it quietly, and the next run goes on", async () => {
    const wrapped = '"$@" 2> errors.txt | head -n 3; exit "${PIPESTATUS[0]}"';
    const first = drover(manifest("effects"), { wrapped });
    expect(await first.ended).toBe(141);
    expect(readFileSync(join(folder, "errors.txt"), "utf8")).toBe("");

    const second = drover(manifest("effects"));
    expect(await second.ended).toBe(0);
    expect(second.output()).toContain("resumed: AgentSession effects");
    expect(effects()).toBe("1\n2\n");
  });

  it("a disk that is full ends it with the reason and exit code 1", async () => {
    // A limit on the size of a file does what a full disk does, for everybody and at once.
    const wrapped = "trap '' XFSZ; ulimit -f 32; exec \"$@\"";
    const run = drover(manifest("long"), { wrapped });

    expect(await run.ended).toBe(1);
    expect(run.output()).toMatch(
      /\nthe log of session sesn_\w+ cannot be written \(EFBIG\); make room or mend the disk, then start again/,
    );
  }, 60_000);

  it("a session whose log is damaged is refused, and the others run", async () => {
    const both = `${inNamespace("blue")}---${inNamespace("green")}`;
    await drover(both).ended;
    const path = files(join(folder, "data", "log")).find((name) => /blue.*\.log$/.test(name)) ?? "";
    const bytes = readFileSync(path);
    bytes[30] = (bytes[30] ?? 0) ^ 1;
    writeFileSync(path, bytes);

    const run = drover(both);

    expect(await run.ended).toBe(3);
    expect(run.output()).toMatch(/error {5}the log of session sesn_\w+ is damaged: .*move it away/);
    expect(linesWith(run.output(), "model")).toEqual(["model     green answer"]);
    expect(readFileSync(path)).toEqual(bytes);
  });

  it.each([{ given: "" }, { given: "not/absolute" }])(
    "XDG_DATA_HOME='$given' counts as unset",
    async ({ given }) => {
      const env = { XDG_DATA_HOME: given, HOME: folder };
      const run = drover(inNamespace("blue"), { args: ARGS.slice(0, -2), env });

      expect(await run.ended).toBe(0);
      expect(readdirSync(join(folder, ".local/share/drover"))).toContain("identity.json");
    },
  );

  it.each([
    {
      mistake: "a data directory that cannot be made",
      args: [...ARGS.slice(0, -1), "manifest.yaml/data"],
      want: /the data directory .*manifest.yaml\/data cannot be written \(\w+\); choose another/,
    },
    {
      mistake: "a data directory in which nothing can be made",
      args: ARGS,
      prepare: "mkdir -p data; touch data/log; ",
      want: /the data directory .*\/data cannot be written \(\w+\); choose another/,
    },
    {
      mistake: "a model URL of another scheme",
      args: [...ARGS, "--model-url", "ws://127.0.0.1:1"],
      want: /--model-url "ws:\/\/127.0.0.1:1" is not accepted; it begins with https/,
    },
    {
      mistake: "a model URL without a scheme",
      args: [...ARGS, "--model-url", "localhost:8080"],
      want: /--model-url "localhost:8080" is not accepted; it begins with https/,
    },
  ])("$mistake is told in words, with exit code 1", async ({ args, want, prepare = "" }) => {
    const run = drover(inNamespace("blue"), { args, wrapped: `${prepare}exec "$@"` });

    expect(await run.ended).toBe(1);
    expect(run.output()).toMatch(want);
  });

  it("a session whose model gives up ends with 3 and says why", async () => {
    const run = drover(manifest("fails"));

    expect(await run.ended).toBe(3);
    expect(run.output()).toContain("model_request_failed_error");
  });

  it.each([
    {
      mistake: "a missing reference",
      text: manifest("effects").replace("metadata: { name: default }", "metadata: { name: other }"),
      want: /sandbox template "default" which does not exist/,
    },
    {
      mistake: "an unknown field",
      text: manifest("effects").replace("messages:", "mesages:"),
      want: /mesages/,
    },
    { mistake: "no session", text: "", want: /no AgentSession/ },
  ])("$mistake is told before anything starts, with exit code 1", async ({ text, want }) => {
    const run = drover(text);

    expect(await run.ended).toBe(1);
    expect(run.output()).toMatch(want);
  });
});

/** `tool_use` ids of all intents in the file log. */
function readIntents(): string[] {
  const found = [...allText().matchAll(/"type":"tool.intent","data":\{"id":"([^"]+)"/g)];
  return found.map((match) => match[1] ?? "");
}

function effects(): string {
  const result = files(join(folder, "data", "sandboxes")).find((name) =>
    name.endsWith("workspace/effects.txt"),
  );
  return result === undefined ? "" : readFileSync(result, "utf8");
}

function allText(): string {
  return files(join(folder, "data", "log"))
    .map((name) => readFileSync(name, "utf8"))
    .join("\n");
}

function files(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
