import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { TokensRequest } from "../protocol/proxy-api.ts";
import { AppError } from "../runtime/errors.ts";
import { IssuedTokens } from "./issued-tokens.ts";

const request: TokensRequest = { sessionId: "s", tenant: "team-a", leaseToken: "lease-1" };

function start() {
  const clock = new FakeClock();
  const asked: TokensRequest[] = [];
  const state = { down: false };
  const tokens = new IssuedTokens({
    clock,
    issuer: {
      issue: async (given) => {
        asked.push(given);
        if (state.down) throw new AppError("UNAVAILABLE", "no issuer");
        return { sessionToken: `token-${asked.length}`, expiresAt: clock.now() + 600_000 };
      },
    },
  });
  return { clock, asked, tokens, state };
}

describe("IssuedTokens", () => {
  it("keeps an answer for two thirds of its life", async () => {
    const { clock, tokens } = start();

    const first = await tokens.get(request);
    await clock.advance(399_000);
    const kept = await tokens.get(request);
    await clock.advance(2000);
    const renewed = await tokens.get(request);

    expect([first, kept, renewed].map(({ sessionToken }) => sessionToken)).toEqual([
      "token-1",
      "token-1",
      "token-2",
    ]);
  });

  it("gives a new answer to who says that the one before was refused, and keeps that", async () => {
    const { tokens } = start();
    await tokens.get(request);

    const anew = await tokens.get({ ...request, refresh: true });
    const kept = await tokens.get(request);

    expect([anew, kept].map(({ sessionToken }) => sessionToken)).toEqual(["token-2", "token-2"]);
  });

  it("asks once for requests that come together", async () => {
    const { asked, tokens } = start();

    await Promise.all([tokens.get(request), tokens.get(request), tokens.get(request)]);

    expect(asked).toHaveLength(1);
  });

  it.each([
    { leaseToken: "lease-2" },
    { sessionId: "other" },
    { tenant: "team-b" },
    { sandbox: { id: "sbx-1" } },
  ])("gives no answer that was made for something else: %j", async (change) => {
    const { asked, tokens } = start();
    await tokens.get(request);

    await tokens.get({ ...request, ...change });

    expect(asked).toHaveLength(2);
  });

  it("does not remember a failure", async () => {
    const { tokens, state } = start();
    state.down = true;
    await expect(tokens.get(request)).rejects.toMatchObject({ code: "UNAVAILABLE" });

    state.down = false;

    expect((await tokens.get(request)).sessionToken).toBe("token-2");
  });
});
