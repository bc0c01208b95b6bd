import { close, url } from "node:inspector";

/**
 * Keeps this process from being debugged. Node opens its inspector when it gets SIGUSR1 or an
 * `--inspect` in NODE_OPTIONS, and whoever reaches the inspector's port reads and changes all that the
 * process has. Our images also start Node with `--disable-sigusr1`, which covers the time until this
 * runs; under that flag an unhandled SIGUSR1 would end the process, so the signal is taken and ignored.
 */
export function refuseDebugger(): void {
  process.on("SIGUSR1", () => {});
  if (url() !== undefined) close();
}
