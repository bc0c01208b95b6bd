import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { Credential } from "../credentials/credential-source.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { HeldCredential } from "./held-credential.ts";
import { KnownValues } from "./known-values.ts";

const outage = () => new AppError("CREDENTIAL_UNAVAILABLE", "no answer", { retryable: true });
const refusal = () => new AppError("CREDENTIAL_UNAVAILABLE", "denied");

/** A place whose answer the test sets. */
function place() {
  const clock = new FakeClock();
  const values = new KnownValues((value) => [{ id: "v/e", value }]);
  const held = new HeldCredential({ clock, values });
  const at = { answer: "first" as string | AppError, reads: 0 };
  const read = async (): Promise<Credential> => {
    at.reads += 1;
    if (typeof at.answer !== "string") throw at.answer;
    return { value: new Secret(at.answer), version: at.answer };
  };
  const get = async () => (await held.get(read)).version;
  const known = () => values.known.map(({ value }) => value);
  return { clock, held, at, get, known };
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

  it("counts its age from before the read that brought it: a slow answer may be old", async () => {
    const { clock, held, at, get } = place();
    const slow = Promise.withResolvers<Credential>();
    const first = held.get(async () => await slow.promise);
    await clock.advance(4000);
    slow.resolve({ value: new Secret("first"), version: "first" });
    await first;
    at.answer = "second";

    await clock.advance(1001);

    expect(await get()).toBe("second");
  });

  it("serves on while its place, which did not answer before, is slow to answer again", async () => {
    const { clock, held, at, get } = place();
    await get();
    at.answer = outage();
    await clock.advance(6000);
    await get();
    await clock.advance(1001);

    const slow = Promise.withResolvers<Credential>();
    const asks = held.get(async () => await slow.promise);
    expect(await get()).toBe("first");
    await clock.advance(3000);
    expect(await get()).toBe("first");

    slow.resolve({ value: new Secret("second"), version: "second" });
    expect((await asks).version).toBe("second");
    expect(await get()).toBe("second");
  });

  it("is looked for in answers in all of its values, the newest first", async () => {
    const { clock, at, get, known } = place();
    for (const value of ["first", "second", "third", "first"]) {
      at.answer = value;
      await get();
      await clock.advance(5001);
    }

    expect(known()).toEqual(["first", "third", "second"]);
  });

  it("is looked for in answers after it was refused, and after it came back as another", async () => {
    const { clock, at, get, known } = place();
    await get();
    at.answer = refusal();
    await clock.advance(5001);
    await get().catch(() => {});
    expect(known()).toEqual(["first"]);

    at.answer = "second";
    await get();
    expect(known()).toEqual(["second", "first"]);
  });
});
