import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./free-ports.ts";

export interface RedisServer {
  url: string;
  port: number;
  /** Kills the server as kill -9 does and starts it on the same port with the same data. */
  restart(): Promise<void>;
  kill(): Promise<void>;
  start(): Promise<void>;
  /** The process stands still: connections stay open, nothing answers. */
  pause(): void;
  resume(): void;
  stop(): Promise<void>;
}

/** A real redis-server on a free port that syncs every write; `args` come last and win. */
export async function startRedis(options: { args?: string[] } = {}): Promise<RedisServer> {
  const directory = await mkdtemp(join(tmpdir(), "drover-redis-"));
  const port = await freePort();
  let child: ChildProcess | undefined;

  const start = async () => {
    const args = ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", directory];
    const durable = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    const started = spawn("redis-server", [...args, ...durable, ...(options.args ?? [])], {
      stdio: "ignore",
    });
    child = started;
    let failure: Error | undefined;
    started.once("error", (error) => {
      failure = error;
    });
    for (let tries = 0; !(await answers(port)); tries += 1) {
      if (failure !== undefined) throw new Error("redis-server cannot be run", { cause: failure });
      if (started.exitCode !== null || tries > 400) throw new Error("redis-server did not start");
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  };
  const kill = async () => {
    const dying = child;
    child = undefined;
    if (dying === undefined || dying.exitCode !== null || dying.signalCode !== null) return;
    const gone = new Promise((resolve) => dying.once("exit", resolve));
    dying.kill("SIGKILL");
    await gone;
  };
  // A test process that ends without clean-up must not leave a server behind.
  const onExit = () => child?.kill("SIGKILL");
  process.once("exit", onExit);
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    start,
    kill,
    async restart() {
      await kill();
      await start();
    },
    pause: () => child?.kill("SIGSTOP"),
    resume: () => child?.kill("SIGCONT"),
    async stop() {
      await kill();
      process.removeListener("exit", onExit);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** True when the server answers PING; also when it asks for a password. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const done = (up: boolean) => {
      socket.destroy();
      resolve(up);
    };
    socket.setTimeout(1000, () => done(false));
    socket.once("error", () => done(false));
    socket.once("connect", () => socket.write("PING\r\n"));
    socket.once("data", (data) => done(!data.toString().includes("LOADING")));
  });
}
