import { EventEmitter } from "node:events";
import { expect, it } from "@jest/globals";
import type { Redis } from "ioredis";
import { describeError } from "../../runtime/errors.ts";
import { createLogger } from "../../runtime/logger.ts";
import { OutageLog } from "./outage-log.ts";
import { describeTrouble, unavailable } from "./redis-errors.ts";

/** What ioredis says of a command that it could not send. */
const notSent = () => new Error("Stream isn't writeable and enableOfflineQueue options is false");

it("an outage of several connections is one line, its end another", () => {
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const log = new OutageLog(createLogger({ level: "debug", process: "harness", destination }));
  const connections = [new EventEmitter(), new EventEmitter()];
  for (const connection of connections) log.watch(connection as unknown as Redis);

  for (const round of [1, 2]) {
    for (const connection of connections) connection.emit("error", new Error(`refused ${round}`));
  }
  for (const connection of connections) connection.emit("ready");

  expect(lines.map(({ level, msg, err }) => ({ level, msg, err }))).toEqual([
    { level: "debug", msg: "redis lost", err: "refused 1" },
    { level: "debug", msg: "redis back", err: undefined },
  ]);
});

it("no message repeats the words of the library", () => {
  expect(describeTrouble(notSent())).toBe("not connected to Redis");
  expect(describeError(unavailable("reading a lease", notSent()))).toBe(
    "reading a lease failed because Redis does not answer; try again",
  );
});
