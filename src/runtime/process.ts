import { refuseDebugger } from "./debugger.ts";
import { codeOf, describeError, hasCode } from "./errors.ts";
import { visible } from "./visible.ts";

/** As a shell says of a program that wrote into a closed pipe: 128 and the number of SIGPIPE. */
const NOBODY_READS = 141;

/**
 * Runs a process' main function: SIGTERM and SIGINT abort its signal, a second one ends it at once;
 * so does a reader of its output that went away (`drover run | head`). A debugger is refused. Exit
 * codes: 0 ended or stopped well, 2 bad configuration, 141 nobody reads the output any more, 1
 * anything else.
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
  let isRead = true;
  for (const output of [process.stdout, process.stderr]) {
    output.on("error", (error) => {
      if (codeOf(error) !== "EPIPE") throw error;
      isRead = false;
      stop.abort();
    });
  }
  try {
    process.exitCode = (await main(stop.signal)) ?? 0;
  } catch (error) {
    process.stderr.write(`${visible(describeError(error))}\n`);
    process.exitCode = hasCode(error, "CONFIG_INVALID") ? 2 : 1;
  }
  if (!isRead) process.exitCode = NOBODY_READS;
  // What still holds the loop open (a keep-alive socket, say) must not keep a finished process.
  process.exit();
}
