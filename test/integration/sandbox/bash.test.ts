import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../../eventually.ts";
import { DaemonFixture, MARKER_SECRET } from "../sandbox-fixture.ts";

const daemon = new DaemonFixture();
beforeAll(() => daemon.start());
afterAll(() => daemon.remove());

/** A sleep that no other test process starts. */
const NAP = `sleep 313.${process.pid}`;

/** Command lines of live processes that contain the text. */
function processesWith(text: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => {
      try {
        return readFileSync(`/proc/${name}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return "";
      }
    })
    .filter((line) => line.includes(text));
}

describe("the shell", () => {
  it("keeps working directory, variables and functions from call to call", async () => {
    await daemon.bash("mkdir -p deep; cd deep; x=5; f() { echo f-$x; }");

    const result = await daemon.bash("f; basename $PWD; cd ..");

    expect(result).toEqual({ content: "f-5\ndeep", is_error: false, outcome: "known" });
  });

  it("answers a command that prints nothing with a note", async () => {
    expect((await daemon.bash("true")).content).toBe("(no output)");
  });

  it("gives the exit code of a command that fails, with its output", async () => {
    const result = await daemon.bash(
      "echo out; echo err >&2; exit_with() { return 3; }; exit_with",
    );

    expect(result).toMatchObject({ content: "out\nerr\n(exit code 3)", is_error: true });
  });

  it("survives a command that bash cannot parse", async () => {
    const result = await daemon.bash("echo 'unbalanced");

    expect(result).toMatchObject({ is_error: true, outcome: "known" });
    expect(result.content).toContain("unexpected EOF");
    expect((await daemon.bash("echo fine")).content).toBe("fine");
  });

  it("says so when a command ends the shell, and goes on in a new one", async () => {
    const ended = await daemon.bash("y=1; echo before; exit 7");
    const next = await daemon.bash('echo "[$y]"');

    expect(ended.content).toContain("before\n(the command ended the shell: exit code 7");
    expect(ended.is_error).toBe(true);
    expect(next.content).toBe("[]");
  });

  it("says so when the shell died between two calls", async () => {
    await daemon.bash("(sleep 0.2; kill -9 $$; touch killed) & echo planted");
    await eventually("the file of the killed command", () =>
      existsSync(join(daemon.workspace, "killed")),
    );
    // The daemon hears of it a moment later.
    await new Promise((resolve) => setTimeout(resolve, 100));

    const result = await daemon.bash("echo here");

    expect(result).toMatchObject({ is_error: false });
    expect(result.content).toBe("here\n(the earlier shell had ended; this ran in a new one)");
  });

  it("begins anew on restart: true", async () => {
    await daemon.bash(`z=1; ${NAP} & true`);

    const restarted = await daemon.call("bash", { restart: true });

    expect(restarted).toMatchObject({ content: "(the shell was restarted)", is_error: false });
    expect((await daemon.bash('echo "[$z]"')).content).toBe("[]");
    expect(processesWith(NAP)).toEqual([]);
  });

  it("gives commands an empty standard input", async () => {
    expect((await daemon.bash("cat; echo end")).content).toBe("end");
  });

  it("runs calls sent together one after the other", async () => {
    const results = await Promise.all(
      [1, 2, 3].map((n) => daemon.bash(`echo ${n} >>order; sleep 0.1; cat order`)),
    );

    // In the order of their arrival, which is the network's: each sees all that came before it whole.
    const seen = results.map((result) => result.content).toSorted((a, b) => a.length - b.length);
    const [first = "", second = "", third = ""] = seen;
    expect(second.startsWith(`${first}\n`)).toBe(true);
    expect(third.startsWith(`${second}\n`)).toBe(true);
    expect(new Set(third.split("\n"))).toEqual(new Set(["1", "2", "3"]));
  });

  it("takes a command of a megabyte", async () => {
    const text = "x".repeat(1_000_000);

    expect((await daemon.bash(`v='${text}'; echo \${#v}`)).content).toBe("1000000");
  });

  it("has nothing of the daemon's environment", async () => {
    const result = await daemon.bash(
      "env; tr '\\0' '\\n' </proc/self/environ; cat /proc/$$/environ",
    );

    expect(result.content).not.toContain(MARKER_SECRET);
    expect(result.content).not.toMatch(/ANTHROPIC|DROVER_PUBLIC_KEYS|DROVER_JOURNAL/);
    const names = [...result.content.matchAll(/^([A-Z_]+)=/gm)].map((match) => match[1] ?? "");
    const known =
      /^(DROVER_SANDBOX|GIT_CONFIG_(COUNT|KEY_0|SYSTEM|VALUE_0)|GIT_TERMINAL_PROMPT|HOME|LANG|OLDPWD|PATH|PWD|SHLVL|TERM|TMPDIR|_)$/;
    expect(names.filter((name) => !known.test(name))).toEqual([]);
  });

  it("does not hand its control channels to commands", async () => {
    expect((await daemon.bash("ls -l /proc/self/fd")).content).not.toContain("socket:");
  });
});

describe("background children", () => {
  it.each([
    { name: "silent", command: `${NAP} & echo a` },
    { name: "with standard output redirected", command: `${NAP} >/dev/null & echo a` },
    { name: "chatty", command: "(while true; do echo noise; sleep 0.1; done) & echo a" },
  ])("$name: the call is over when the command is", async ({ command }) => {
    const started = performance.now();
    const result = await daemon.bash(command);

    expect(performance.now() - started).toBeLessThan(5000);
    // A child may print before its parent does; what comes later is dropped.
    expect(result.content.replaceAll("noise", "").trim()).toBe("a");
  });

  it("do not print into the output of a later call, and are not killed by that", async () => {
    await daemon.bash("(while true; do echo noise; date >alive; sleep 0.1; done) & true");
    await daemon.bash("sleep 0.3; rm -f alive");

    const result = await daemon.bash("sleep 0.5; test -e alive && echo alive");

    expect(result.content).toBe("alive");
    await daemon.call("bash", { restart: true });
  });

  it("print what they like after the call: it is neither kept nor a load", async () => {
    const command = "(sleep 0.3; head -c 5000000 /dev/zero; touch printed) & true";
    await daemon.call("bash", { command }, "toolu_late");

    await daemon.bash("while ! test -e printed; do sleep 0.1; done");

    expect(existsSync(join(daemon.workspace, ".drover/outputs/toolu_late.txt"))).toBe(false);
  });
});

describe("the time limit", () => {
  it.each([
    { name: "a command that traps TERM", command: `trap '' TERM; echo part; ${NAP}` },
    {
      name: "a child that traps TERM",
      command: `bash -c "trap '' TERM; echo part; ${NAP}; true"`,
    },
    {
      name: "a child in a session of its own",
      command: `echo part; setsid bash -c "trap '' TERM; ${NAP}; true" & setsid -w ${NAP}`,
    },
    {
      name: "an orphan in a session of its own",
      command: `echo part; (setsid ${NAP} &); ${NAP}`,
    },
    { name: "children without environment", command: `echo part; env -i ${NAP} & ${NAP}` },
  ])("kills $name and gives what was printed", async ({ command }) => {
    const started = performance.now();
    const result = await daemon.bash(command, 700);

    expect(performance.now() - started).toBeLessThan(10_000);
    expect(result).toMatchObject({ is_error: true, outcome: "known" });
    expect(result.content).toMatch(/^part\n\(timed out after 700 ms; /);
    expect(processesWith(NAP)).toEqual([]);
    expect((await daemon.bash("echo next")).content).toBe("next");
  });

  it("kills a fork storm", async () => {
    const storm = "f() { for i in 1 2 3 4 5 6 7 8; do (g $1) & done; wait; }";
    const depth = `g() { if [ $1 -gt 0 ]; then f $(($1 - 1)); else setsid ${NAP}; fi; }`;
    const result = await daemon.bash(`${storm}; ${depth}; f 2`, 1000);

    expect(result.content).toContain("timed out after 1000 ms");
    expect(processesWith(NAP)).toEqual([]);
    expect((await daemon.bash("echo next")).content).toBe("next");
  });
});

describe("output", () => {
  it("keeps characters whole whose bytes come in separate reads", async () => {
    const result = await daemon.bash(
      "printf '\\xf0\\x9f'; sleep 0.2; printf '\\x9a\\xa2|\\xff|a\\0b'",
    );

    expect(result.content).toBe("🚢|\u{fffd}|a\0b");
  });

  it("gives 60,000 three-byte characters whole", async () => {
    const result = await daemon.bash("printf '€%.0s' $(seq 60000)");

    expect(result.content).toBe("€".repeat(60_000));
  });

  it("loses nothing of a last burst", async () => {
    // While the daemon is busy with other calls, a command's end may be heard of before its output.
    const readMany = async () => {
      for (let i = 0; i < 20; i += 1) await daemon.call("read", { file_path: "order" });
    };
    const others = Array.from({ length: 20 }, readMany);
    const bursts = Array.from({ length: 40 }, () => daemon.bash("printf '%060000d' 0"));

    const lengths = (await Promise.all(bursts)).map((result) => result.content.length);

    await Promise.all(others);
    expect(lengths).toEqual(bursts.map(() => 60_000));
  });

  it("shows head, tail, true size and exit code of a large output, and keeps all of it in a file", async () => {
    const result = await daemon.call("bash", { command: "seq 200000" }, "toolu_big");

    expect(result.is_error).toBe(false);
    expect(result.content.startsWith("1\n2\n3\n")).toBe(true);
    expect(result.content).toMatch(/\n199999\n200000\n\(exit code 0\)$/);
    expect(result.content).toContain("1288895 bytes in all");
    expect(result.content).toContain(".drover/outputs/toolu_big.txt");
    expect(result.content.length).toBeLessThan(25_000);
    const file = readFileSync(join(daemon.workspace, ".drover/outputs/toolu_big.txt"), "utf8");
    expect(file).toBe(`${Array.from({ length: 200_000 }, (_, i) => i + 1).join("\n")}\n`);
  });

  it.each([-3, -2, -1, 0, 1])(
    "cuts between characters: an emoji %i units from the border",
    async (offset) => {
      const head = 10_000 + offset;
      const result = await daemon.bash(
        `head -c ${head} /dev/zero | tr '\\0' x; printf '🚢'; head -c 300000 /dev/zero | tr '\\0' y; printf '🚢'; head -c ${9999 + offset} /dev/zero | tr '\\0' z`,
      );

      expect(result.content.isWellFormed()).toBe(true);
      expect(result.content).not.toContain("\u{fffd}");
      expect(result.content.startsWith("x".repeat(Math.min(head, 10_000)))).toBe(true);
    },
  );

  it.each([
    { name: "many lines", command: "seq 100000000", timeoutMs: 60_000, bytes: "888888898" },
    {
      name: "one gigabyte without a newline",
      command: "head -c 1073741824 /dev/zero | tr '\\0' a",
      timeoutMs: 60_000,
      bytes: "1073741824",
    },
    { name: "an endless printer", command: "yes", timeoutMs: 2000, bytes: "bytes in all" },
  ])(
    "$name: the daemon's memory stays flat and the true size is told",
    async ({ command, timeoutMs, bytes }) => {
      const before = daemon.residentMib();

      const result = await daemon.bash(command, timeoutMs);

      expect(result.content).toContain(bytes);
      expect(result.content).toContain("The first 100000000 bytes are in");
      expect(daemon.residentMib() - before).toBeLessThan(120);
    },
    120_000,
  );

  it("keeps the files of large outputs within 200 MB", () => {
    const folder = join(daemon.workspace, ".drover/outputs");
    const sizes = readdirSync(folder).map((name) => statSync(join(folder, name)).size);

    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(200_000_000);
  });

  it("is never logged by the daemon", async () => {
    await daemon.bash("echo output-that-is-private");

    expect(daemon.log).toContain("call ended");
    expect(daemon.log).not.toContain("output-that-is-private");
    expect(daemon.log).not.toContain(MARKER_SECRET);
  });
});
