import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { FakeEdge } from "../fakes/fake-edge.ts";
import { DaemonFixture, MARKER_SECRET } from "../integration/sandbox-fixture.ts";
import { GitHost } from "../servers/git-host.ts";
import { newMarker, Sweeper } from "./sweeper.ts";

/**
 * T14, the part of a process' own making: what a command of the model finds in environments, argument
 * lists, descriptors and files while the daemon has things to hide. That a pod shows no other
 * processes and mounts no token is the cluster's part: T13 and the end-to-end tests.
 */

/** The credential of the git host, which only the edge has. */
const hostToken = newMarker("T14");
/** Opens the edge for this sandbox; git has it from one file. */
const sandboxToken = newMarker("T14");

let host: GitHost;
let edge: FakeEdge;
let daemon: DaemonFixture;
/** Of every process below the daemon, seen while git worked. */
let seenProcesses = "";
let stolen = "";

beforeAll(async () => {
  host = await GitHost.start();
  await host.addRepository("team/app", { token: hostToken });
  edge = new FakeEdge({ app: { url: host.repositoryUrl("team/app"), token: hostToken } });
  edge.accepted = new Set([sandboxToken]);
  const edgeUrl = await edge.start();
  daemon = new DaemonFixture();
  await daemon.start();
  seenProcesses = await whileWatching(daemon, async () => {
    const repositories = [{ name: "app", url: "https://git.example/team/app", path: "app" }];
    const request = { edgeUrl, sandboxToken, repositories };
    await daemon.client().repositories(daemon.address, request);
    await daemon.bash("cd app && date > file && git add . && git commit -qm 'A file'");
    await daemon.bash("git push -q origin HEAD:refs/heads/work && git fetch -q; cd ..");
  });
  const { content } = await daemon.bash(THIEF);
  stolen = content;
}, 60_000);

afterAll(async () => {
  await daemon?.remove();
  await edge?.close();
  await host?.close();
});

/** All that a command can read of itself and of what it starts. */
const THIEF = `
env
export -p
set
cat /proc/self/environ /proc/self/cmdline | tr '\\0' '\\n'
(cat /proc/$BASHPID/environ | tr '\\0' '\\n')
bash -c 'tr "\\0" "\\n" </proc/self/environ; ls -l /proc/$$/fd; true'
git config --list --show-origin | grep -v extraheader
git -C app config --list --local
echo "core limit $(ulimit -c)"
cat /run/secrets/kubernetes.io/serviceaccount/token /var/run/secrets/*/* 2>/dev/null
echo all seen
`;

describe("what a command of the model finds", () => {
  it("there was something to find, and git worked with it", async () => {
    expect(readFileSync(`/proc/${daemon.child?.pid}/environ`, "utf8")).toContain(MARKER_SECRET);
    expect(await host.read("team/app", "log", "-1", "--format=%s", "work")).toBe("A file");
    expect(new Set(edge.shown)).toEqual(new Set([`Bearer ${sandboxToken}`]));
    expect(stolen).toContain("all seen");
    expect(seenProcesses).toContain("git-remote-http");
  });

  it("no secret of the daemon's environment, of the edge or of git in its own", () => {
    const sweeper = new Sweeper([MARKER_SECRET, hostToken, sandboxToken]);
    sweeper.text("what a command sees", stolen);
    sweeper.text("environments and argument lists of git", seenProcesses);

    expect(sweeper.findings).toEqual([]);
  });

  it("no descriptor but its own three", () => {
    const descriptors = [...stolen.matchAll(/ (\d+) -> (.*)$/gm)]
      // What whoever runs the tests left open goes to every process below.
      .filter(([, fd, target]) => Number(fd) < 3 || targetHere(fd) !== target)
      .map(([, fd]) => fd);

    expect(descriptors).toEqual(["0", "1", "2"]);
  });

  it("the token for the edge in one file, which no other user can read, and the host's in none", async () => {
    const sweeper = new Sweeper([hostToken, sandboxToken]);
    await sweeper.files(daemon.root);
    await sweeper.files("/dev/shm");
    sweeper.text("the daemon's log", daemon.log);
    const file = join(daemon.journal, "git", "config");

    expect(new Set(sweeper.findings.map(({ place }) => place))).toEqual(new Set([file]));
    expect(sweeper.findings.filter(({ marker }) => marker === hostToken)).toEqual([]);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(daemon.journal, "git")).mode & 0o777).toBe(0o700);
  });
});

/** Environment and command line of all that the daemon starts meanwhile. */
async function whileWatching(rig: DaemonFixture, work: () => Promise<void>): Promise<string> {
  const seen = new Set<string>();
  const look = () => {
    const own = readOrEmpty(`/proc/${rig.child?.pid}/cmdline`);
    for (const pid of descendantsOf(rig.child?.pid ?? 0)) {
      // Until it runs its program, a child is a copy of the daemon.
      if (readOrEmpty(`/proc/${pid}/cmdline`) === own) continue;
      for (const name of ["cmdline", "environ"]) seen.add(readOrEmpty(`/proc/${pid}/${name}`));
    }
  };
  const watching = setInterval(look, 2);
  try {
    await work();
  } finally {
    clearInterval(watching);
  }
  return [...seen].join("\n");
}

function descendantsOf(root: number): number[] {
  const below = [root];
  // A process has a higher number than its parent, unless numbers began anew.
  const all = readdirSync("/proc").map(Number).filter(Number.isInteger);
  for (const pid of all.toSorted((a, b) => a - b)) {
    const parent = /^\d+ \(.*\) \S (\d+)/.exec(readOrEmpty(`/proc/${pid}/stat`))?.[1];
    if (below.includes(Number(parent))) below.push(pid);
  }
  return below.slice(1);
}

function targetHere(fd: string | undefined): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/** A process may be gone by now. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
