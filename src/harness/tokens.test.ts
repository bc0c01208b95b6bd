import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import type { TokensRequest } from "../protocol/proxy-api.ts";
import { AppError } from "../runtime/errors.ts";
import { LeaseTokens, SidecarTokens } from "./tokens.ts";

function leaseTokens(answer?: () => Promise<never>) {
  const clock = new FakeClock();
  const lost = new AbortController();
  const log = { holds: true, asked: 0 };
  const lease = {
    ref: { tenant: "t", id: "sesn_1" },
    token: "3.abc",
    lost: lost.signal,
    barrier: () => {
      log.asked += 1;
      if (log.holds) return Promise.resolve();
      const fenced = new AppError("SESSION_LEASE_LOST", "fenced");
      lost.abort(fenced);
      return Promise.reject(fenced);
    },
  };
  const asked: TokensRequest[] = [];
  const tokens = new LeaseTokens({
    clock,
    lease,
    rng: createSeededRng(),
    source: {
      requestTokens: async (request) => {
        asked.push(request);
        if (answer !== undefined) return await answer();
        return {
          sessionToken: `session-${asked.length}`,
          ...(request.sandbox === undefined ? {} : { executeToken: `execute-${asked.length}` }),
          expiresAt: clock.now() + 600_000,
        };
      },
    },
  });
  return { clock, asked, tokens, log };
}

describe("the tokens of a lease", () => {
  it("are asked for once, also by callers side by side, and again a minute before they expire", async () => {
    const { clock, asked, tokens } = leaseTokens();

    expect(await tokens.session()).toBe("session-1");
    expect(await tokens.session()).toBe("session-1");
    await clock.advance(539_000);
    expect(await tokens.session()).toBe("session-1");
    await clock.advance(2000);
    expect(await tokens.session()).toBe("session-2");
    expect(asked[0]).toEqual({ sessionId: "sesn_1", tenant: "t", leaseToken: "3.abc" });
  });

  it("are separate for each sandbox", async () => {
    const { asked, tokens } = leaseTokens();

    expect(await tokens.execute("a")).toBe("execute-1");
    expect(await tokens.execute("b")).toBe("execute-2");
    expect(await tokens.execute("a")).toBe("execute-1");
    expect(asked.map((request) => request.sandbox?.id)).toEqual(["a", "b"]);
  });

  it("are asked for again after a failure or a refusal", async () => {
    let fail = true;
    const { asked, tokens } = leaseTokens(() => Promise.reject(new Error(fail ? "down" : "up")));

    await expect(tokens.session()).rejects.toThrow("down");
    fail = false;
    await expect(tokens.session()).rejects.toThrow("up");
    tokens.invalidate();
    expect(asked).toHaveLength(2);
  });

  it("are asked for anew, past what the sidecar keeps, once one was refused", async () => {
    const { asked, tokens } = leaseTokens();
    await tokens.execute("a");

    tokens.invalidate();
    await tokens.execute("a");
    await tokens.execute("b");
    tokens.invalidate();
    await tokens.execute("a");

    expect(asked.map((request) => request.refresh)).toEqual([undefined, true, undefined, true]);
  });
});

describe("an issuer that says the lease is lost", () => {
  const behind = (code: "SESSION_LEASE_LOST" | "SESSION_NOT_FOUND") =>
    Promise.reject(new AppError(code, "says the issuer"));

  it.each(["SESSION_LEASE_LOST", "SESSION_NOT_FOUND"] as const)(
    "is asked again while the lease holds by the log (%s)",
    async (code) => {
      let stale = true;
      const { clock, asked, tokens } = leaseTokens(() => {
        if (stale) return behind(code);
        throw new AppError("UNAVAILABLE", "another matter");
      });
      const got = tokens.session().catch((error: unknown) => error);

      await clock.advance(3000);
      stale = false;
      await clock.advance(3000);

      expect(await got).toMatchObject({ code: "UNAVAILABLE", message: "another matter" });
      expect(asked.length).toBeGreaterThan(3);
      expect(asked.length).toBeLessThan(12);
    },
  );

  it("is believed when the log says so too", async () => {
    const { asked, tokens, log } = leaseTokens(() => behind("SESSION_LEASE_LOST"));
    log.holds = false;

    await expect(tokens.session()).rejects.toMatchObject({ code: "SESSION_LEASE_LOST" });

    expect([asked.length, log.asked]).toEqual([1, 1]);
  });

  it("and stays behind is UNAVAILABLE to the caller, with the reason", async () => {
    const { clock, tokens } = leaseTokens(() => behind("SESSION_LEASE_LOST"));
    const got = tokens.session().catch((error: unknown) => error);

    for (let i = 0; i < 15; i += 1) await clock.advance(1000);

    expect(await got).toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
      message: expect.stringContaining("the store that the issuer reads is behind"),
    });
  });
});

describe("the sidecar", () => {
  const source = (respond: () => Promise<Response>) =>
    new SidecarTokens({
      sidecarUrl: "http://sidecar",
      clock: new FakeClock(),
      fetch: () => respond(),
    });
  const request = { sessionId: "s", tenant: "t", leaseToken: "1.a" };
  const json = (status: number, body: unknown) => Promise.resolve(Response.json(body, { status }));

  it.each([
    {
      name: "keeps the code it answers with",
      respond: () => json(409, { error: { code: "SESSION_LEASE_LOST", message: "not yours" } }),
      want: { code: "SESSION_LEASE_LOST", message: expect.stringContaining("not yours") },
    },
    {
      name: "is unavailable when it answers nothing useful",
      respond: () => Promise.resolve(new Response("<html>", { status: 502 })),
      want: { code: "UNAVAILABLE", retryable: true },
    },
    {
      name: "is unavailable when it cannot be reached",
      respond: () => Promise.reject(new TypeError("fetch failed")),
      want: { code: "UNAVAILABLE", retryable: true },
    },
    {
      name: "is at fault when its answer holds no tokens",
      respond: () => json(200, {}),
      want: { code: "INTERNAL" },
    },
  ])("$name", async ({ respond, want }) => {
    const error = await source(respond)
      .requestTokens(request)
      .catch((reason: unknown) => reason);

    expect(error).toMatchObject(want);
  });
});
