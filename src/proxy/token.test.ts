import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { LeaseState } from "../protocol/session-ports.ts";
import {
  AUDIENCES,
  generateSigningKey,
  leaseTokenHash,
  type SigningKey,
  signToken,
} from "../protocol/tokens.ts";
import { AppError } from "../runtime/errors.ts";
import { PublicKeys, SessionTokenCheck } from "./token.ts";

const claims = {
  sub: "sesn_1",
  ten: "team-a",
  ver: "r1",
  epoch: 1,
  ltk: leaseTokenHash("lease-1"),
  pod: "pod-1",
};

async function start() {
  const clock = new FakeClock();
  const published: SigningKey[] = [await generateSigningKey("key-1")];
  const state = {
    keyRequests: 0,
    storeDown: false,
    lease: { token: "lease-1", epoch: 1, owner: "pod-1", terminated: false } as LeaseState | null,
  };
  const keys = new PublicKeys({
    clock,
    issuer: {
      keys: async () => {
        state.keyRequests += 1;
        return { keys: published.map(({ publicJwk }) => publicJwk) };
      },
    },
  });
  const check = new SessionTokenCheck({
    keys,
    podUid: "pod-1",
    clock,
    leases: {
      readLease: async () => {
        if (state.storeDown) throw new AppError("UNAVAILABLE", "no store");
        return state.lease;
      },
    },
  });
  const bearer = async (key: SigningKey | undefined) => {
    if (key === undefined) throw new Error("no key");
    const times = { nowMs: clock.now(), lifeSeconds: 600 };
    return `Bearer ${await signToken(key, AUDIENCES.session, claims, times)}`;
  };
  return { clock, published, state, check, bearer };
}

describe("SessionTokenCheck", () => {
  it("asks for the keys again when a token names a new one", async () => {
    const { clock, published, state, check, bearer } = await start();
    await check.verify(await bearer(published[0]));
    published.push(await generateSigningKey("key-2"));
    await clock.advance(11_000);

    expect(await check.verify(await bearer(published[1]))).toMatchObject({ sub: "sesn_1" });
    expect(state.keyRequests).toBe(2);
  });

  it("does not ask the issuer for every forged token", async () => {
    const { published, state, check, bearer } = await start();
    await check.verify(await bearer(published[0]));
    const forged = await bearer(await generateSigningKey("key-x"));

    for (let i = 0; i < 20; i += 1) {
      await expect(check.verify(forged)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    }

    expect(state.keyRequests).toBe(1);
  });

  it("refuses a token it has verified before once its life is over", async () => {
    const { clock, published, check, bearer } = await start();
    const token = await bearer(published[0]);
    await check.verify(token);

    await clock.advance(601_000);

    await expect(check.verify(token)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
  });

  it("lets reads go on for 10 s of a store that is away, and not longer", async () => {
    const { clock, published, state, check, bearer } = await start();
    const verified = await check.verify(await bearer(published[0]));
    await check.confirm(verified, false);
    state.storeDown = true;

    await clock.advance(9000);
    await check.confirm(verified, false);
    await clock.advance(2000);

    await expect(check.confirm(verified, false)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("confirms nothing afresh while the store is away", async () => {
    const { published, state, check, bearer } = await start();
    const verified = await check.verify(await bearer(published[0]));
    await check.confirm(verified, true);

    state.storeDown = true;

    await expect(check.confirm(verified, true)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  it("gives up on a store that hangs", async () => {
    const { clock, published, bearer } = await start();
    const [key] = published;
    if (key === undefined) throw new Error("no key");
    const check = new SessionTokenCheck({
      keys: { withKey: async () => ({ keys: [key.publicJwk] }) },
      podUid: "pod-1",
      clock,
      leases: { readLease: async () => await new Promise<never>(() => {}) },
    });
    const verified = await check.verify(await bearer(key));

    const confirming = check.confirm(verified, true).catch((error: unknown) => error);
    await clock.advance(2000);

    expect(await confirming).toMatchObject({ code: "TIMEOUT" });
  });
});
