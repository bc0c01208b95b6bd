import { spawnSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { startSandboxProcess } from "./sandbox-process.ts";

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-sandbox-process-"));
});

afterEach(async () => {
  const text = await readFile(join(folder, "pids"), "utf8").catch(() => "");
  // A test that fails leaves nothing behind either.
  for (const pid of text.split("\n").filter((line) => line !== "")) {
    spawnSync("kill", ["-9", pid]);
  }
  await rm(folder, { recursive: true });
});

let said: string[] = [];

/** Starts a shell script in place of the daemon. */
function start(script: string, clock: FakeClock) {
  const place = {
    sandboxId: "box",
    workspace: folder,
    journal: join(folder, "journal"),
    processRecord: join(folder, "process.json"),
    temporary: folder,
    examples: folder,
  };
  return startSandboxProcess(
    ["/bin/sh", "-c", script],
    place,
    { keys: [] },
    "/usr/bin",
    clock,
    (line) => said.push(line),
  );
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; !(await holds()); tries += 1) {
    if (tries > 1000) throw new Error("it does not come to hold");
    await sleep(10);
  }
}

/** Process ids the script wrote, one a line, when there are `count`. */
async function pids(count: number): Promise<number[]> {
  let found: string[] = [];
  await until(async () => {
    const text = await readFile(join(folder, "pids"), "utf8").catch(() => "");
    found = text.split("\n").filter((line) => line !== "");
    return found.length === count;
  });
  return found.map(Number);
}

/** Ended; nobody may have asked for its exit code yet. */
const gone = (pid: number) =>
  until(async () => {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => ") Z");
    return /\) [ZX]/.test(stat);
  });

describe("a daemon that does not come up", () => {
  it("is killed with what it started when it never says where it listens", async () => {
    const clock = new FakeClock();
    const starting = start("sleep 600 & echo $! >>pids; echo $$ >>pids; echo hello; wait", clock);
    const refusal = starting.catch((error: unknown) => error);
    const [child = 0, daemon = 0] = await pids(2);
    await until(() => clock.pending > 0);

    await clock.advance(40_000);

    expect(await refusal).toMatchObject({ code: "TIMEOUT" });
    await gone(daemon);
    await gone(child);
  });

  it("takes what it started along when it ends before it is ready", async () => {
    const ended = start("sleep 600 >/dev/null & echo $! >>pids; exit 3", new FakeClock());

    await expect(ended).rejects.toMatchObject({ code: "UNAVAILABLE" });

    const [child = 0] = await pids(1);
    await gone(child);
  });
});
