import { expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { AppError, codeOf } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { isConnectAgain, StreamWatch, type UseKind } from "./stream-watch.ts";
import type { Caller } from "./token.ts";

const LIFE_MS = 600_000;

function setUp({ kind }: { kind: UseKind }) {
  const clock = new FakeClock();
  const problems: { lease?: AppError; credential?: AppError } = {};
  const seen = { version: "1", askedBy: "" };
  const watch = new StreamWatch({
    clock,
    tokens: {
      confirm: async () => {
        if (problems.lease !== undefined) throw problems.lease;
      },
    },
  });
  const caller = (token: string): Caller => ({
    claims: {
      sub: "sesn_1",
      ten: "team-a",
      epoch: 1,
      pod: "pod-1",
      ltk: "hash",
      exp: (clock.now() + LIFE_MS) / 1000,
    } as Caller["claims"],
    session: { id: "sesn_1", token: new Secret(token) },
  });
  const start = (token: string) => {
    const over = Promise.withResolvers<void>();
    const stream: { end?: unknown; finish: () => void } = { finish: () => over.resolve() };
    const target = {
      what: 'MCP server "docs"',
      credential: { version: "1" },
      readCredential: async (by: Caller["session"]) => {
        seen.askedBy = by.token.reveal();
        if (problems.credential !== undefined) throw problems.credential;
        return { version: seen.version };
      },
    };
    void watch.during({ caller: caller(token), target, kind }, async (ended) => {
      ended.addEventListener("abort", () => {
        stream.end = ended.reason;
      });
      await over.promise;
    });
    return stream;
  };
  return { clock, problems, seen, start };
}

it.each([
  ["SESSION_LEASE_LOST", "SESSION_LEASE_LOST"],
  ["SESSION_CLOSED", "SESSION_CLOSED"],
] as const)("a stream is ended a second after its lease is found to be %s", async (code, told) => {
  const { clock, problems, start } = setUp({ kind: "call" });
  const stream = start("t");
  await clock.advance(30_000);
  expect(stream.end).toBeUndefined();

  problems.lease = new AppError(code, "no");
  await clock.advance(1000);

  expect(stream.end).toMatchObject({ code: told, details: { outcome: "unknown" } });
});

it("a stream is ended when its credential is refused, in words that do not invite to send it again", async () => {
  const { clock, problems, start } = setUp({ kind: "call" });
  const stream = start("t");
  const cause = new Error("what the vault said");
  problems.credential = new AppError("CREDENTIAL_NOT_FOUND", "it is gone", { cause });
  await clock.advance(1000);

  expect(stream.end).toMatchObject({
    code: "CREDENTIAL_UNAVAILABLE",
    message: 'what MCP server "docs" was asked is broken off: it is gone',
    details: { outcome: "unknown" },
  });
});

it("an unreadable lease ends a stream only after a minute without a good read", async () => {
  const { clock, problems, start } = setUp({ kind: "listening" });
  const stream = start("t");
  problems.lease = new AppError("REDIS_UNREACHABLE", "away", { retryable: true });
  await clock.advance(59_000);
  delete problems.lease;
  await clock.advance(1000);
  problems.lease = new AppError("REDIS_UNREACHABLE", "away", { retryable: true });
  await clock.advance(60_000);
  expect(stream.end).toBeUndefined();

  await clock.advance(1000);

  expect(codeOf(stream.end)).toBe("REDIS_UNREACHABLE");
});

it("a changed credential ends a listening stream, so that a new one is opened with the new value", async () => {
  const { clock, seen, start } = setUp({ kind: "listening" });
  const stream = start("t");
  seen.version = "2";
  await clock.advance(1000);

  expect(isConnectAgain(stream.end)).toBe(true);
});

it("a changed credential does not break off a call that runs", async () => {
  const { clock, seen, start } = setUp({ kind: "call" });
  const stream = start("t");
  seen.version = "2";
  await clock.advance(10_000);

  expect(stream.end).toBeUndefined();
});

it("a listening stream ends with its token, unless the same lease has shown a newer one", async () => {
  const { clock, seen, start } = setUp({ kind: "listening" });
  const stream = start("old");
  await clock.advance(LIFE_MS - 1000);
  const other = start("new");
  await clock.advance(5000);
  expect(stream.end).toBeUndefined();
  expect(seen.askedBy).toBe("new");

  await clock.advance(LIFE_MS);

  expect([stream, other].map(({ end }) => isConnectAgain(end))).toEqual([true, true]);
});

it("a call outlives its token by five minutes, in which no vault is asked with it", async () => {
  const { clock, problems, start } = setUp({ kind: "call" });
  const stream = start("t");
  await clock.advance(LIFE_MS - 1000);
  problems.credential = new AppError("CREDENTIAL_UNAVAILABLE", "the token has run out");
  await clock.advance(299_000);
  expect(stream.end).toBeUndefined();

  await clock.advance(2000);

  expect(codeOf(stream.end)).toBe("UNAUTHENTICATED");
});

it("nothing is left waiting when a use is over", async () => {
  const { clock, start } = setUp({ kind: "call" });
  const stream = start("t");
  await clock.advance(1500);
  stream.finish();
  await clock.settle();

  expect(clock.pending).toBe(0);
});
