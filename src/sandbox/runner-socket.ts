import { rm } from "node:fs/promises";
import { createServer } from "node:net";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { RunnerLink } from "./runner-link.ts";

/**
 * How the runner of a pod reaches the daemon. The socket lies in a volume that the container of the
 * tools can only read, so that nothing there can take its place. The first to connect is the runner:
 * it starts before any tool does.
 */

/** Where the daemon's runner comes from. */
export interface RunnerSource {
  /** Resolves when the runner is gone. */
  close(): Promise<void>;
}

export interface RunnerSocketOptions {
  path: string;
  link: RunnerLink;
  clock: Clock;
  /** Tools of this sandbox may have run before, under an earlier daemon, and may run still. */
  usedBefore: boolean;
}

/**
 * After a runner is gone nobody is let in for this long. Its container ends with it, with every process
 * there: what could connect in its name is dead when the pause is over.
 */
export const PAUSE_MS = 2000;

/** Listens at the path. Throws CONFIG_INVALID when that is not possible. */
export async function listenForRunner(options: RunnerSocketOptions): Promise<RunnerSource> {
  const { path, link, clock } = options;
  let open = true;
  const pause = () => {
    open = false;
    clock.timer(PAUSE_MS, () => {
      open = true;
    });
  };
  if (options.usedBefore) pause();
  const server = createServer((connection) => {
    connection.on("error", () => {});
    if (!open) {
      connection.destroy();
      return;
    }
    open = false;
    void link.attach(connection).then(pause);
  });
  try {
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      // The runner is another user; the volume is what keeps the socket in its place.
      server.listen({ path, readableAll: true, writableAll: true }, resolve);
    });
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `the runner's socket "${path}" cannot be made`, { cause });
  }
  return {
    close: async () => {
      server.close();
      await link.close();
    },
  };
}
