import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { aSandboxPod } from "../builders/pods.ts";
import { DaemonFixture } from "../integration/sandbox-fixture.ts";

/**
 * T14, the part about taking over: a command of the model that signals, debugs or wears out the
 * processes above it, to forge what they say or to read what they hold.
 */

let daemon: DaemonFixture;

beforeAll(async () => {
  daemon = new DaemonFixture();
  await daemon.start();
}, 60_000);

afterAll(() => daemon?.remove());

/** Signals every process above it, then looks for an inspector that answers on a port of this machine. */
const SIGNALS_ALL_ABOVE = String.raw`
const { readFileSync } = require("node:fs");
const above = [];
for (let pid = process.ppid; pid > 1; ) {
  const ours = readFileSync("/proc/" + pid + "/cmdline", "latin1").includes("src/cmd/sandbox");
  if (ours) above.push(pid);
  pid = Number(/^PPid:\s+(\d+)/m.exec(readFileSync("/proc/" + pid + "/status", "utf8"))[1]);
}
for (const pid of above) process.kill(pid, "SIGUSR1");
(async () => {
  let answer = "no inspector";
  for (let tries = 0; tries < 15; tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    answer = await fetch("http://127.0.0.1:9229/json/list").then((r) => r.text(), () => answer);
  }
  console.log("signalled " + above.length + ": " + answer);
})();
`;

describe("the debugger of Node", () => {
  it("is not opened by a signal, and the signal ends no process of ours", async () => {
    await daemon.call("write", { file_path: "evil.cjs", content: SIGNALS_ALL_ABOVE });
    const { content } = await daemon.bash("node evil.cjs");
    const honest = await daemon.bash("echo TESTS FAILED; exit 3");

    expect(content).toMatch(/^signalled [12]: no inspector$/);
    expect(honest.content).toContain("TESTS FAILED");
    expect(honest.content).toContain("exit code 3");
    expect(daemon.log).not.toContain("Debugger listening");
  }, 30_000);

  it("is not kept open when the environment asked for it", async () => {
    const child = ofOurs({ NODE_OPTIONS: "--inspect=127.0.0.1:0" });
    try {
      const [, port] = await said(child, /ws:\/\/127\.0\.0\.1:(\d+)/);
      await said(child, /running/);

      await expect(fetch(`http://127.0.0.1:${port}/json/list`)).rejects.toThrow("fetch failed");
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("is shut off before the first line of ours runs, wherever we start Node", () => {
    const started = readdirSync(".")
      .filter((name) => name.startsWith("Dockerfile"))
      .map((name) => /^ENTRYPOINT (.*)$/m.exec(readFileSync(name, "utf8"))?.[1] ?? "");
    const scripts = JSON.parse(readFileSync("package.json", "utf8")) as {
      scripts: Record<string, string>;
    };

    expect(started.length).toBeGreaterThan(1);
    for (const text of [...started, scripts.scripts["drover"], scripts.scripts["demo"]]) {
      expect(text).toContain("--disable-sigusr1");
    }
  });

  it("finds no process to trace: only root may read the programs of our two in a sandbox", () => {
    const dockerfile = readFileSync("Dockerfile.sandbox", "utf8");

    for (const program of ["node", "tini"]) {
      expect(dockerfile).toMatch(
        new RegExp(`install -m 0711 .*command -v ${program}.* /opt/drover/bin/${program}`),
      );
      expect(aSandboxPod().spec.containers.map(({ command }) => command)).toEqual([
        expect.arrayContaining([`/opt/drover/bin/${program}`]),
        expect.arrayContaining([`/opt/drover/bin/${program}`]),
      ]);
    }
  });

  it("is refused in every process that we start", () => {
    const entries = readdirSync("src/cmd")
      .filter((name) => name.endsWith(".ts") && name !== "copy-assets.ts")
      .map((name) => ({ name, text: readFileSync(join("src/cmd", name), "utf8") }))
      .filter(({ text }) => /^if \(import\.meta\.main\)|^await /m.test(text));

    expect(entries.map(({ name }) => name)).toContain("drover.ts");
    for (const { name, text } of entries) {
      expect(text.includes("runProcess(") ? name : `${name} starts by itself`).toBe(name);
    }
  });
});

describe("output that is costly to read", () => {
  it.each([
    { name: "empty lines", print: "head -c 100000 /dev/zero | tr '\\0' '\\n'; echo x" },
    {
      name: "control sequences",
      print: "yes $'\\e[1;1;' | tr -d '\\n' | head -c 100000; echo; echo x",
    },
  ])("holds the daemon up for no time: $name", async ({ print }) => {
    const started = performance.now();
    const { content } = await daemon.bash(print).catch((error: unknown) => ({
      content: String(error),
    }));

    expect(content.slice(-20)).toMatch(/x(\n\(exit code 0\))?$/);
    expect(performance.now() - started).toBeLessThan(3000);
  });
});

/** A process that runs as all of ours do, and says so. */
function ofOurs(env: Record<string, string>): ChildProcess {
  const script = `
    import { runProcess } from "./src/runtime/process.ts";
    await runProcess(async (signal) => {
      console.error("running");
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    });`;
  return spawn(process.execPath, ["--input-type=module", "-e", script], {
    env: { PATH: process.env["PATH"], ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
}

/** Waits until the process has printed what fits. */
async function said(child: ChildProcess, pattern: RegExp): Promise<RegExpExecArray> {
  const texts = printed.get(child) ?? { text: "" };
  if (!printed.has(child)) {
    printed.set(child, texts);
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (texts.text += text));
  }
  for (;;) {
    const match = pattern.exec(texts.text);
    if (match !== null) return match;
    if (child.exitCode !== null || child.stderr === null) throw new Error(texts.text);
    await once(child.stderr, "data");
  }
}

const printed = new Map<ChildProcess, { text: string }>();
