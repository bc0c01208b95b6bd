import { createProgram } from "../cli/program.ts";
import { systemClock } from "../runtime/clock.ts";
import { runProcess } from "../runtime/process.ts";

/**
 * `drover`: one entry point for every process and for the command line. Each sub-command is loaded
 * when it is asked for, so that a process starts without the libraries of the others.
 */
await runProcess(async (signal) => {
  let code = 0;
  const env = process.env;
  const program = createProgram({
    operator: async () => (await import("./operator.ts")).operatorMain(env, signal),
    harness: async () => (await import("./harness.ts")).harnessMain(env, signal),
    proxy: async () => (await import("./proxy.ts")).proxyMain(env, signal),
    edge: async () => (await import("./edge.ts")).edgeMain(env, signal),
    sandbox: async () => (await import("./sandbox.ts")).sandboxMain(env, signal),
    "scripted-model": async () =>
      (await import("./scripted-model.ts")).scriptedModelMain(env, signal),
    cleanup: async () => (await import("./cleanup.ts")).cleanupMain(env, signal),
    run: async (options) => (await import("./run.ts")).runMain(options, env, signal),
    credentials: async (action) =>
      (await import("./credentials.ts")).credentialsMain(action, env, {
        input: process.stdin,
        output: process.stdout,
      }),
    "audit verify": async (options) =>
      (await import("./audit-verify.ts")).auditVerifyMain(options, {
        input: process.stdin,
        output: process.stdout,
        clock: systemClock,
      }),
    done: (result) => {
      code = result;
    },
  });
  await program.parseAsync(process.argv);
  return code;
});
