import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { AUDIENCES, generateSigningKey, signToken } from "../protocol/tokens.ts";
import { AppError } from "../runtime/errors.ts";
import { SandboxTokenCheck } from "./sandbox-token.ts";
import { PublicKeys } from "./token.ts";

const claims = { sub: "sesn_1", ten: "team-a", hand: "main", gen: 2, sbx: "sbx-1", ip: "10.0.0.7" };
const bound = {
  sessionId: "sesn_1",
  tenant: "team-a",
  hand: "main",
  generation: 2,
  ip: "10.0.0.7",
};

async function start() {
  const clock = new FakeClock();
  const key = await generateSigningKey("key-1");
  const state: {
    binding: typeof bound | null;
    lease: { token: string; epoch: number; owner: string; terminated: boolean } | null;
    storeDown: boolean;
    asked: string[];
  } = {
    binding: bound,
    lease: { token: "", epoch: 1, owner: "", terminated: false },
    storeDown: false,
    asked: [],
  };
  const check = new SandboxTokenCheck({
    keys: new PublicKeys({ clock, issuer: { keys: async () => ({ keys: [key.publicJwk] }) } }),
    bindings: {
      readBinding: async (id) => {
        state.asked.push(id);
        if (state.storeDown) throw new AppError("UNAVAILABLE", "no store");
        return state.binding;
      },
    },
    leases: { readLease: async () => state.lease },
    clock,
  });
  const bearer = async (changes: object = {}, audience: string = AUDIENCES.sandbox, by = key) => {
    const times = { nowMs: clock.now(), lifeSeconds: 600 };
    return `Bearer ${await signToken(by, audience, { ...claims, ...changes }, times)}`;
  };
  return { clock, state, check, bearer };
}

describe("SandboxTokenCheck", () => {
  it("refuses a sandbox whose session is over, though it is bound to it", async () => {
    const { state, check, bearer } = await start();
    const authorization = await bearer();
    await check.verify(authorization, "10.0.0.7");

    state.lease = { token: "", epoch: 1, owner: "", terminated: true };
    await expect(check.verify(authorization, "10.0.0.7")).rejects.toMatchObject({
      code: "SESSION_CLOSED",
    });
    state.lease = null;
    await expect(check.verify(authorization, "10.0.0.7")).rejects.toMatchObject({
      code: "SESSION_NOT_FOUND",
    });
  });

  it.each(["10.0.0.7", "::ffff:10.0.0.7"])("knows a bound sandbox at %s", async (address) => {
    const { state, check, bearer } = await start();
    const authorization = await bearer();

    const caller = await check.verify(authorization, address);

    expect(caller.claims).toMatchObject(claims);
    expect(caller.session.id).toBe("sesn_1");
    expect(`Bearer ${caller.session.token.reveal()}`).toBe(authorization);
    expect(state.asked).toEqual(["sbx-1"]);
  });

  it.each(["10.0.0.8", "::ffff:10.0.0.8", "", undefined])(
    "refuses the token of a sandbox from address %s",
    async (address) => {
      const { check, bearer } = await start();

      await expect(check.verify(await bearer(), address)).rejects.toMatchObject({
        code: "FORBIDDEN",
        message: expect.stringContaining("another address"),
      });
    },
  );

  it.each<{ name: string; binding: typeof bound | null }>([
    { name: "no binding", binding: null },
    { name: "another session", binding: { ...bound, sessionId: "sesn_2" } },
    { name: "another tenant", binding: { ...bound, tenant: "team-b" } },
    { name: "another hand", binding: { ...bound, hand: "second" } },
    { name: "another generation", binding: { ...bound, generation: 3 } },
    { name: "another address", binding: { ...bound, ip: "10.0.0.8" } },
  ])("refuses a token whose sandbox has $name now", async ({ binding }) => {
    const { state, check, bearer } = await start();
    state.binding = binding;

    await expect(check.verify(await bearer(), "10.0.0.7")).rejects.toMatchObject({
      code: "FORBIDDEN",
      message: expect.stringContaining("not bound"),
    });
  });

  it("sees at once that a binding has gone", async () => {
    const { state, check, bearer } = await start();
    const authorization = await bearer();
    await check.verify(authorization, "10.0.0.7");
    state.binding = null;

    await expect(check.verify(authorization, "10.0.0.7")).rejects.toMatchObject({
      code: "FORBIDDEN",
    });
  });

  it("serves nobody while the binding cannot be read", async () => {
    const { state, check, bearer } = await start();
    const authorization = await bearer();
    await check.verify(authorization, "10.0.0.7");
    state.storeDown = true;

    await expect(check.verify(authorization, "10.0.0.7")).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
  });

  it("refuses what is no sandbox token of the issuer, and asks for no binding", async () => {
    const { clock, state, check, bearer } = await start();
    const forger = await generateSigningKey("key-1");
    const old = await bearer();
    await clock.advance(600_000);

    for (const authorization of [
      undefined,
      "Basic abc",
      "Bearer not-a-token",
      old,
      await bearer({}, AUDIENCES.session),
      await bearer({}, AUDIENCES.execute),
      await bearer({}, AUDIENCES.vault),
      await bearer({}, AUDIENCES.sandbox, forger),
      await bearer({ ip: undefined }),
    ]) {
      await expect(check.verify(authorization, "10.0.0.7")).rejects.toMatchObject({
        code: "UNAUTHENTICATED",
      });
    }
    expect(state.asked).toEqual([]);
  });
});
