import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { run, SYSTEM } from "./cluster.ts";
import { installArguments, prepareSystem } from "./installation.ts";

/** The commands of README's "On a cluster", as they stand there; the test bed's values are added. */
function readmeCommands(): string[] {
  const section = readFileSync("README.md", "utf8").split("## On a cluster")[1] ?? "";
  const block = /^```sh\n(.*?)^```/ms.exec(section)?.[1] ?? "";
  return block.split("\n").filter((line) => line !== "");
}

beforeAll(async () => {
  // The first command is an install: what an earlier file left goes first.
  await run("helm", ["uninstall", "drover", "-n", SYSTEM, "--wait", "--timeout", "120s"]);
  await prepareSystem();
}, 180_000);

afterAll(async () => {
  await run("kubectl", ["delete", "-n", SYSTEM, "-f", "deploy/examples/minimal.yaml"]);
}, 120_000);

it("the commands of README install Drover and run a session", async () => {
  const commands = readmeCommands();
  expect(commands.map((line) => line.split(" ").slice(0, 2).join(" "))).toEqual([
    "helm install",
    "kubectl apply",
    "kubectl wait",
    "kubectl get",
  ]);
  let last = "";
  for (const command of commands) {
    const quoted = installArguments.map((word) => `'${word}'`).join(" ");
    const full = command.startsWith("helm ") ? `${command} ${quoted}` : command;

    const result = await run("bash", ["-c", full]);

    expect({ command, code: result.code, stderr: result.stderr }).toMatchObject({ code: 0 });
    last = result.stdout;
  }
  expect(last).toMatch(/hello +Idle +True +Idle/);
}, 400_000);
