import { type Logger as PinoLogger, pino } from "pino";

/** JSON lines; field vocabulary: house style 9.8. User content and secrets are never logged. */
export type Logger = Pick<PinoLogger, "debug" | "info" | "warn" | "error"> & {
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
    base: { process: options.process },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: REDACTED, censor: "[redacted]" },
  };
  return options.destination ? pino(settings, options.destination) : pino(settings);
}

export const silentLogger: Logger = pino({ level: "silent" });
