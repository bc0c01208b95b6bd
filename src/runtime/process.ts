import { refuseDebugger } from "./debugger.ts";
import { describeError, hasCode } from "./errors.ts";

/**
 * Runs a process' main function: SIGTERM and SIGINT abort its signal, a second one ends it at
 * once; a debugger is refused. Exit codes: 0 ended or stopped well, 2 bad configuration, 1 anything else.
 */
export async function runProcess(
  main: (signal: AbortSignal) => Promise<number | undefined>,
): Promise<void> {
  refuseDebugger();
  const stop = new AbortController();
  const onSignal = () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  try {
    process.exitCode = (await main(stop.signal)) ?? 0;
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`);
    process.exitCode = hasCode(error, "CONFIG_INVALID") ? 2 : 1;
  }
  // What still holds the loop open (a keep-alive socket, say) must not keep a finished process.
  process.exit();
}
