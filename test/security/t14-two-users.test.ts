import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { eventually } from "../eventually.ts";
import { SplitSandbox } from "../integration/sandbox/split-sandbox.ts";

/**
 * T14, from the tools of a sandbox to its daemon and its runner, which are two users as in a pod. Each
 * way there is tried by a command of the model. Needs root; elsewhere the cluster's tests are the proof.
 */
const describeAsRoot = process.getuid?.() === 0 ? describe : describe.skip;

describeAsRoot("code in the sandbox", () => {
  let sandbox: SplitSandbox;
  let daemonPid = 0;
  const runnerPid = () => sandbox.runner?.pid ?? 0;

  beforeAll(async () => {
    sandbox = new SplitSandbox();
    await sandbox.start();
    await sandbox.bash("true");
    daemonPid = sandbox.child?.pid ?? 0;
  }, 120_000);

  afterAll(() => sandbox?.remove());

  it("runs as another user than the daemon, and the sandbox works", async () => {
    const { content } = await sandbox.bash("id -u; echo hello >file; cat file");

    expect(content).toBe("10001\nhello");
    expect(readFileSync(`/proc/${daemonPid}/status`, "utf8")).toMatch(/^Uid:\s+10005/m);
  });

  it("has all its file tools, from a runner that may not be looked into", async () => {
    await sandbox.call("write", { file_path: "a/b.txt", content: "one two" });
    const edit = { file_path: "a/b.txt", old_string: "two", new_string: "three" };
    const results = [
      await sandbox.call("edit", edit),
      await sandbox.call("read", { file_path: "a/b.txt" }),
      await sandbox.call("glob", { pattern: "a/*.txt" }),
      await sandbox.call("grep", { pattern: "three", path: "a" }),
    ];

    expect(results.map(({ is_error }) => is_error)).toEqual([false, false, false, false]);
    expect(results[1]?.content).toBe("one three");
    expect(results[2]?.content).toContain("b.txt");
    expect(results[3]?.content).toContain("three");
  });

  it.each(["USR1", "STOP", "TERM", "KILL"])("sends no SIG%s to the daemon", async (signal) => {
    const { content } = await sandbox.bash(`kill -s ${signal} ${daemonPid} || echo refused`);

    expect(content).toContain("Operation not permitted");
    expect(content).toContain("refused");
    expect((await sandbox.bash("echo well")).content).toBe("well");
  });

  it.each([
    { who: "daemon", pid: () => daemonPid },
    { who: "runner", pid: runnerPid },
  ])("reads and writes nothing of the $who by way of /proc", async ({ pid }) => {
    const { content } = await sandbox.bash(`
      cd /proc/${pid()}
      for file in environ maps auxv; do cat $file >/dev/null 2>&1 && echo "read $file"; done
      head -c 1 mem >/dev/null 2>&1; (: >>mem) 2>/dev/null && echo "opened mem"
      ls fd/ >/dev/null 2>&1 && echo "listed fd"
      readlink cwd root exe
      (echo 1 >coredump_filter) 2>/dev/null && echo "changed the filter"
      cd; echo done`);

    expect(content).toBe("done");
  });

  it.each([
    { who: "daemon", pid: () => daemonPid },
    { who: "runner", pid: runnerPid },
  ])("traces no system call of the $who", async ({ pid }) => {
    const tracer = "command -v gdb >/dev/null || { echo no tracer; exit 0; }";
    const { content } = await sandbox.bash(
      `(${tracer}; gdb -p ${pid()} --batch -ex detach 2>&1 | grep -i ptrace)`,
    );

    expect(content).toMatch(/Operation not permitted|no tracer/);
  });

  it("is not let in beside the runner, and cannot take the place of the socket", async () => {
    await sandbox.call("write", {
      file_path: "connect.cjs",
      content: `
        const s = require("node:net").connect(process.argv[2]);
        s.on("connect", () => s.write(Buffer.from('\\0\\0\\0\\x0d{"t":"hello"}')));
        s.on("data", () => console.log("was asked"));
        s.on("error", () => {});
        s.on("close", () => console.log("refused"));`,
    });
    const { content } = await sandbox.bash(`
      node connect.cjs ${sandbox.socket}
      rm -f ${sandbox.socket} 2>&1; mv ${sandbox.socket} x 2>&1; ln -sf x ${sandbox.socket} 2>&1
      ls ${sandbox.journal} 2>&1; touch ${sandbox.journal}/journal.jsonl 2>&1; true`);

    expect(content).toMatch(/^refused\n/);
    expect(content).not.toContain("was asked");
    expect(content.match(/Permission denied|cannot/g)?.length).toBeGreaterThanOrEqual(4);
    expect((await sandbox.bash("echo well")).content).toBe("well");
  });

  it("that kills the runner gets no answer for its own call, and the next one works", async () => {
    const before = runnerPid();
    const starts = sandbox.starts;
    const killed = await sandbox.bash(`echo printed; sleep 0.5; kill -9 ${before}; sleep 30`);
    await eventually("another runner", () => runnerPid() !== before);
    const next = await sandbox.bash("echo well");

    expect(killed).toMatchObject({ is_error: true, outcome: "unknown" });
    expect(killed.content).toMatch(/restarted while this call was running.*printed\n$/s);
    expect(next).toEqual({ content: "well", is_error: false, outcome: "known" });
    // It waits until it is let in: a container that ends early is kept from starting for longer and longer.
    expect(sandbox.starts).toBe(starts + 1);
  }, 60_000);

  it("that stops the runner only makes its own session wait: the daemon goes on", async () => {
    const stopped = sandbox.bash(`kill -STOP ${runnerPid()}; echo stopped >mark; sleep 1`);
    await eventually("the runner stands still", () =>
      /^State:\s+T/m.test(readFileSync(`/proc/${runnerPid()}/status`, "utf8")),
    );
    const health = await fetch(`http://${sandbox.address}/healthz`);
    process.kill(runnerPid(), "SIGCONT");

    expect(health.status).toBe(200);
    expect((await stopped).outcome).toBe("known");
  });
});
