import { type Logger as PinoLogger, pino } from "pino";

const LEVELS = ["debug", "info", "warn", "error"] as const;

/** JSON lines; fields: docs/design/house-style.md#logging. User content and secrets are never logged. */
export type Logger = Pick<PinoLogger, (typeof LEVELS)[number]> & {
  /** A logger whose lines have these fields too; one that it has already takes the new value. */
  child(fields: Record<string, unknown>): Logger;
};

export interface LoggerOptions {
  level: string;
  process: string;
  /** Where lines go; defaults to standard output. */
  destination?: { write(line: string): void };
}

/** Paths that must never print, whatever object is passed as a field. */
const REDACTED = [
  "authorization",
  "*.authorization",
  "token",
  "*.token",
  "leaseToken",
  "*.leaseToken",
  "password",
  "*.password",
  "apiKey",
  "*.apiKey",
  "headers",
  "*.headers",
];

export function createLogger(options: LoggerOptions): Logger {
  const settings = {
    level: options.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: REDACTED, censor: "[redacted]" },
  };
  const root = options.destination ? pino(settings, options.destination) : pino(settings);
  return withFields(root, { process: options.process });
}

export const silentLogger: Logger = withFields(pino({ level: "silent" }), {});

/** pino writes a field of a child beside the parent's of the same name; here each stands once in a line. */
function withFields(root: PinoLogger, bound: Record<string, unknown>): Logger {
  const write =
    (level: (typeof LEVELS)[number]) =>
    (first: string | object, ...rest: [string?]) => {
      if (typeof first === "string") root[level](bound, first);
      else root[level]({ ...bound, ...first }, ...rest);
    };
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    child: (fields) => withFields(root, { ...bound, ...fields }),
  };
}
