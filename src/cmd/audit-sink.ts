import { writeSync } from "node:fs";
import type { AuditSink } from "../proxy/audit.ts";

/**
 * Lines to standard output, each by a write of its own that is done, or has failed, when `write`
 * returns. A line is shorter than what a pipe takes as a whole, so lines of the log do not mix with it.
 */
export const stdoutAuditSink: AuditSink = {
  write: (line) => {
    writeSync(1, `${line}\n`);
  },
};
