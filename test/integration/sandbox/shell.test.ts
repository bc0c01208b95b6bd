import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { array, assert, asyncProperty, constantFrom } from "fast-check";
import { DaemonFixture } from "../sandbox-fixture.ts";

/**
 * Each command runs once, whatever the commands before it did to the shell, or its result says that it
 * did not run.
 */

const daemon = new DaemonFixture();
beforeAll(() => daemon.start());
afterAll(() => daemon.remove());

/** Names that a shell could use to run and report commands, or that scripts stub in tests. */
const WORDS =
  "read eval exit printf echo builtin command exec trap test [ : while if set unset source true enable local declare return cat .".split(
    " ",
  );
const functions = (words: readonly string[], code: number) =>
  words.map((word) => `function ${word} { builtin return ${code}; }`).join("\n");

/** What commands do to their shell. */
const HOSTILE: readonly string[] = [
  ...chunks(WORDS, 6).flatMap((words) => [
    functions(words, 0),
    functions(words, 1),
    `shopt -s expand_aliases\n${words.map((word) => `alias ${word}='false '`).join("\n")}`,
    words.map((word) => `enable -n ${word} 2>/dev/null`).join("; "),
  ]),
  "read() { REPLY=yes; }; eval() { :; }",
  '.() { builtin . "$@"; }; builtin() { :; }',
  "trap 'false' DEBUG",
  "trap 'exit 9' DEBUG",
  "shopt -s extdebug; trap 'false' DEBUG",
  "set -T; trap 'echo debug' DEBUG",
  "trap 'echo error' ERR; trap 'echo return' RETURN; trap 'echo bye' EXIT",
  "trap '' TERM INT HUP CHLD PIPE; trap 'echo pipe' PIPE",
  "IFS=0123456789; set -f",
  "IFS=/.; set -e",
  "set -uxvCkma",
  "set -t",
  "set -r",
  "set -n",
  "set -o posix",
  "set -H; set -o history",
  "POSIXLY_CORRECT=1; readonly POSIXLY_CORRECT; .() { :; }",
  "export BASH_ENV=/dev/zero ENV=/dev/zero",
  "readonly IFS PATH PS4 REPLY _",
  "PROMPT_COMMAND='exit 3'; PS1='$(exit 3)'; PS4='$(touch never)'",
  "exec 198>&- 199<&- 255<&- 10>&- 3>&- 4>&-",
  "exec 255</dev/null 198</dev/null 199>/dev/null",
  'for f in /proc/$$/fd/*; do n=${f##*/}; [ "$n" -gt 2 ] && eval "exec $n>&- $n<&-"; done; true',
  "exec <&-; exec >/dev/null 2>&1",
  "exec true",
  "exit 3",
  "return 5",
  "break; continue 3",
  "kill -9 $$",
  "(sleep 0.1; kill -9 $$) & true",
  "ulimit -n 3",
  "umask 777",
  "cd /; PATH=",
  "unset PATH HOME; LANG=tr_TR LC_ALL=tr_TR",
  "mkdir gone; cd gone; rmdir ../gone",
  "echo 'unbalanced",
  "cat <<END\nno end",
  "if true; then",
  "}",
  ")",
  "coproc cat",
  "set -- a b c; shift 9",
  "BASH_ARGV0=x; OPTIND=x; SECONDS=; LINENO=7; _=x",
  "declare -n x=y; declare -i IFS; declare -l PATH",
  "shopt -s nullglob failglob dotglob extglob globstar lastpipe inherit_errexit",
  "# only a comment \\",
  "true \\",
];

describe("a command after others that changed the shell", () => {
  it.each(HOSTILE)("runs once after %j", async (hostile) => {
    expect(await runs(hostile)).toEqual(ONCE);
  });

  it("runs once after any of them together", async () => {
    const several = array(constantFrom(...HOSTILE), { minLength: 2, maxLength: 4 });
    await assert(
      asyncProperty(several, async (chosen) => {
        expect(await runs(...chosen)).toEqual(ONCE);
      }),
      { numRuns: 8, seed: 12 },
    );
  });

  it("runs in a new shell, and says so, when the shell does not take it", async () => {
    await daemon.bash("x=5; .() { :; }");

    const { content } = await daemon.bash('echo "[$x]"');

    expect(content).toBe("[]\n(the earlier shell had ended; this ran in a new one)");
  });
});

describe("a command that the shell cannot report", () => {
  it.each(["set -n", "set -r", "shopt -s extdebug; trap false DEBUG", "ulimit -n 3"])(
    "%j: says so long before the time limit",
    async (command) => {
      const started = performance.now();

      const result = await daemon.call("bash", { command: `echo before; ${command}` });

      expect(performance.now() - started).toBeLessThan(20_000);
      expect(result).toMatchObject({ is_error: true, outcome: "known" });
      expect(result.content).toMatch(/^before\n\(the command is over and left the shell unable to/);
    },
  );

  it("is not taken for one that runs long with its output elsewhere", async () => {
    const result = await daemon.bash("exec >quiet 2>&1; sleep 5; echo end");

    expect(result).toMatchObject({ content: "(no output)", is_error: false });
    expect(readFileSync(join(daemon.workspace, "quiet"), "utf8")).toBe("end\n");
  });
});

describe("the end of a shell", () => {
  it("by `exit 0` is a success, with the note that the shell is a new one", async () => {
    const result = await daemon.bash("echo fine; exit 0");

    expect(result.is_error).toBe(false);
    expect(result.content).toMatch(/^fine\n\(the command ended the shell: exit code 0\. The shell/);
  });

  it.each(["exit 1", "kill -9 $$", "exec false"])("by %j is an error", async (command) => {
    expect((await daemon.bash(command)).is_error).toBe(true);
  });
});

it("the shell keeps all of its state from call to call", async () => {
  await daemon.call("bash", { restart: true });
  const commands = [
    "mkdir -p here; cd here; umask 027; set -- a 'b c'; declare -A map=([k]=v); list=(1 2)",
    "export FOO='a b'; readonly fixed=1; exec 7>seven; shopt -s expand_aliases globstar; set -f",
    "alias hi='echo hello'; f() { echo \"f $1\"; }; trap 'echo usr' USR1; (sleep 1; exit 4) & false",
  ];
  for (const command of commands) await daemon.bash(command);

  const { content } = await daemon.bash(
    [
      'wait $!; echo "job $?"; hi; f x; basename "$PWD"; umask; echo "$# $2 ${map[k]} ${list[1]} $fixed"',
      "bash -c 'echo \"$FOO\"'; echo seven >&7; cat seven; shopt -q globstar && echo globstar; echo $-; kill -USR1 $$",
    ].join("\n"),
  );

  expect(content.split("\n")).toEqual([
    "job 4",
    "hello",
    "f x",
    "here",
    "0027",
    "2 b c v 2 1",
    "a b",
    "seven",
    "globstar",
    expect.stringMatching(/^\w*f\w*$/),
    "usr",
  ]);
});

it("a command that is killed leaves no file of ours", async () => {
  await daemon.bash("kill -STOP $$ & sleep 0.1; true", 300);
  const files = readdirSync(join(daemon.journal, "run"));

  expect(files.filter((name) => /^(bash|take)$|\.(out|end)/.test(name))).toEqual([]);
});

/** `next`: how often it ran beyond what its result says, which is once, or that it was not run. */
const ONCE = { first: 1, next: 0 };

/** Each command leaves a line for each time that it runs. */
async function runs(...hostile: readonly string[]) {
  const first = join(daemon.workspace, "first");
  const next = join(daemon.workspace, "next");
  for (const path of [first, next]) rmSync(path, { force: true });
  await daemon.call("bash", { restart: true });

  for (const [index, text] of hostile.entries()) {
    const mark = index === 0 ? `/bin/echo x >>${first}\n` : "";
    await daemon.bash(`${mark}${text}`);
  }
  const { content } = await daemon.call("bash", { command: `/bin/echo x >>${next}` });

  const claimed = content.includes("was not run") ? 0 : 1;
  return { first: lines(first), next: lines(next) - claimed };
}

function lines(path: string): number {
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").length - 1 : 0;
}

function chunks<T>(list: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) =>
    list.slice(i * size, (i + 1) * size),
  );
}
