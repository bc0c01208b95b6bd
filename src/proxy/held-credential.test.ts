import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { Credential } from "../credentials/credential-source.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { HeldCredential } from "./held-credential.ts";

const outage = () => new AppError("CREDENTIAL_UNAVAILABLE", "no answer", { retryable: true });
const refusal = () => new AppError("CREDENTIAL_UNAVAILABLE", "denied");

/** A place whose answer the test sets. */
function place() {
  const clock = new FakeClock();
  const held = new HeldCredential({ clock });
  const at = { answer: "first" as string | AppError, reads: 0 };
  const read = async (): Promise<Credential> => {
    at.reads += 1;
    if (typeof at.answer !== "string") throw at.answer;
    return { value: new Secret(at.answer), version: at.answer };
  };
  const get = async () => (await held.get(read)).version;
  return { clock, held, at, get };
}

describe("a held credential", () => {
  it("is read once for many uses, and again once it is older than 5 s", async () => {
    const { clock, at, get } = place();
    await Promise.all([get(), get(), get()]);
    at.answer = "second";
    await clock.advance(5000);

    expect(await get()).toBe("first");
    await clock.advance(1);
    expect(await get()).toBe("second");
    expect(at.reads).toBe(2);
  });

  it("serves on for 60 s after its last good read while its place does not answer", async () => {
    const { clock, at, get } = place();
    await get();
    at.answer = outage();

    await clock.advance(60_000);
    expect(await get()).toBe("first");
    await clock.advance(1);
    await expect(get()).rejects.toThrow("no answer");
  });

  it("asks once a second during an outage, and takes the new value when it is over", async () => {
    const { clock, at, get } = place();
    await get();
    at.answer = outage();
    await clock.advance(6000);
    await get();
    await get();
    expect(at.reads).toBe(2);

    at.answer = "second";
    await clock.advance(1001);
    expect(await get()).toBe("second");
  });

  it("is dropped at once when its place refuses it, and not used in a later outage", async () => {
    const { clock, at, get } = place();
    await get();
    at.answer = refusal();
    await clock.advance(5001);

    await expect(get()).rejects.toThrow("denied");
    at.answer = outage();
    await expect(get()).rejects.toThrow("no answer");
  });

  it("is looked for in answers ten minutes after it was replaced", async () => {
    const { clock, held, at, get } = place();
    await get();
    at.answer = "second";
    await clock.advance(5001);
    await get();

    expect(held.known("v/e").map(({ value }) => value)).toEqual(["second", "first"]);
    await clock.advance(600_000);
    expect(held.known("v/e")).toEqual([{ id: "v/e", value: "second" }]);
  });
});
