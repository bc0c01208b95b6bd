import { expect, it } from "@jest/globals";
import { createLogger } from "./logger.ts";

function linesOf(use: (logger: ReturnType<typeof createLogger>) => void): string[] {
  const lines: string[] = [];
  const destination = { write: (line: string) => void lines.push(line.trim()) };
  use(createLogger({ level: "debug", process: "harness", destination }));
  return lines;
}

it("a line has level, time, process, its fields and a message", () => {
  const [line = ""] = linesOf((logger) => logger.info({ sessionId: "sesn_1" }, "session claimed"));

  expect(JSON.parse(line)).toEqual({
    level: "info",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    process: "harness",
    sessionId: "sesn_1",
    msg: "session claimed",
  });
});

it("each field stands once in a line, with its nearest value", () => {
  const [line = ""] = linesOf((logger) =>
    logger
      .child({ component: "worker", epoch: 1 })
      .child({ component: "turn" })
      .warn({ epoch: 2 }, "said again"),
  );

  expect(line.match(/"component":/g)).toHaveLength(1);
  expect(line.match(/"epoch":/g)).toHaveLength(1);
  expect(JSON.parse(line)).toMatchObject({ component: "turn", epoch: 2 });
});

it("a message alone keeps the fields of its logger", () => {
  const [line = ""] = linesOf((logger) => logger.child({ component: "worker" }).error("lost"));

  expect(JSON.parse(line)).toMatchObject({ component: "worker", msg: "lost", level: "error" });
});

it("what may hold a secret is not printed, in a child neither", () => {
  const [line = ""] = linesOf((logger) =>
    logger.child({ token: "abc" }).info({ headers: "def" }, "x"),
  );

  expect(JSON.parse(line)).toMatchObject({ token: "[redacted]", headers: "[redacted]" });
});
