import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { GitHost } from "../../servers/git-host.ts";

/** deploy/examples/private-repository.yaml as the guide tells to run it: `drover run`, a real git host. */

const TOKEN = "CNRY-local-7d20-5be1";
const FILE = "deploy/examples/private-repository.yaml";

let host: GitHost;
let folder: string;

beforeEach(async () => {
  host = await GitHost.start();
  await host.addRepository("team/app", { token: TOKEN });
  folder = mkdtempSync(join(tmpdir(), "drover-local-repository-"));
  const url = host.repositoryUrl("team/app");
  const manifest = readFileSync(FILE, "utf8").replaceAll("https://git.example.com/team/app", url);
  writeFileSync(join(folder, "manifest.yaml"), manifest);
});

afterEach(async () => {
  await host.close();
  rmSync(folder, { recursive: true, force: true });
});

async function drover(
  args: string[],
  input = "",
): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [join(process.cwd(), "src/cmd/drover.ts"), ...args], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: folder },
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.end(input);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString("utf8");
    });
  }
  await once(child, "close");
  return { code: child.exitCode, output };
}

const play = ["run", "-f", "manifest.yaml", "--data-dir", "data"];

describe("the example on a private repository", () => {
  it("commits, pushes to its branch, and is refused on main with the reason in the transcript", async () => {
    const main = await host.read("team/app", "rev-parse", "main");
    await drover(["credentials", "set", "default", "app-repository", "token"], TOKEN);
    const { code, output } = await drover([...play, "--allow-server", host.authority]);

    expect({ code, output }).toEqual({ code: 0, output: expect.any(String) });
    expect(output).toContain("policy: this session may push to agent/** only");
    expect(await host.read("team/app", "show", "agent/note:NOTE.md")).toContain("no token");
    expect(await host.read("team/app", "rev-parse", "main")).toBe(main);
    // The positive control: the host has seen the token. Nothing of ours keeps it.
    const shown = Buffer.from(`x-access-token:${TOKEN}`).toString("base64");
    expect(host.received.map(({ headers }) => headers.authorization)).toContain(`Basic ${shown}`);
    const kept = readdirSync(join(folder, "data"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .filter((entry) => {
        const text = readFileSync(join(entry.parentPath, entry.name), "latin1");
        return text.includes(TOKEN) || text.includes(shown);
      });
    expect(kept).toEqual([]);
    expect(output).not.toContain(TOKEN);
  }, 60_000);

  it("without the credential the session goes on, and the model is told why there is no clone", async () => {
    const { output } = await drover([...play, "--allow-server", host.authority]);

    expect(output).toMatch(/Repository "app" could not be cloned into app: .*credential/);
    expect(output).toContain("repository_clone_error");
  }, 60_000);
});
