import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { afterEach, expect, it } from "@jest/globals";
import { PORTS } from "../../../src/api/names.ts";
import { aSandboxPod } from "../../builders/pods.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { freePort } from "../../servers/free-ports.ts";

/** The command that the kubelet runs in the daemon's container before it probes it, with a real bash. */

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** The hook of the sandbox pod, asking another port of this machine. */
function startHook(port: number) {
  const daemon = aSandboxPod().spec.containers.find(({ name }) => name === "daemon");
  const [program = "", ...args] = daemon?.lifecycle?.postStart?.exec?.command ?? [];
  const own = args.map((arg) => arg.replace(`/${PORTS.sandbox}`, `/${port}`));
  const child = spawn(program, own, { stdio: ["ignore", "pipe", "pipe"] });
  cleanups.add(async () => void child.kill("SIGKILL"));
  const hook = { code: undefined as number | null | undefined, output: "" };
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      hook.output += chunk.toString();
    });
  }
  child.once("close", (code) => {
    hook.code = code;
  });
  return hook;
}

it("goes on while nobody listens and while calls are not taken, and ends well when they are", async () => {
  const port = await freePort();
  const hook = startHook(port);
  await new Promise((resolve) => setTimeout(resolve, 400));
  expect(hook.code).toBeUndefined();

  const daemon = { status: 503, asked: 0 };
  const server = createServer((request, response) => {
    if (request.url === "/healthz") daemon.asked += 1;
    response.writeHead(daemon.status).end("x");
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  cleanups.add(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  await eventually("some questions", () => daemon.asked > 2);
  expect(hook.code).toBeUndefined();
  daemon.status = 200;
  await eventually("its end", () => hook.code !== undefined);

  expect(hook).toEqual({ code: 0, output: "" });
});

it("ends without a failure when the daemon never comes, so that the container is not killed for it", async () => {
  const daemon = aSandboxPod().spec.containers.find(({ name }) => name === "daemon");
  const script = daemon?.lifecycle?.postStart?.exec?.command?.at(-1) ?? "";
  expect(script).toContain("SECONDS < 30");
  const child = spawn("bash", ["-p", "-c", script.replace("< 30", "< 1").replace("7080", "1")]);
  const code = await new Promise((resolve) => child.once("close", resolve));

  expect(code).toBe(0);
});
