import { expect, it } from "@jest/globals";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../../test/fakes/seeded-rng.ts";
import { codeOf } from "../../runtime/errors.ts";
import { withRetry } from "./retry.ts";

const refused = () => new Error("Stream isn't writeable and enableOfflineQueue options is false");
const uncertain = () => new Error("Command timed out");
const reply = (message: string) => Object.assign(new Error(message), { name: "ReplyError" });

async function attempt(errors: (() => Error)[], writes = true) {
  const clock = new FakeClock();
  let tries = 0;
  const options = { what: "appending", deadlineMs: 1000, writes };
  const work = withRetry({ clock, rng: createSeededRng() }, options, () => {
    const error = errors[Math.min(tries, errors.length - 1)];
    tries += 1;
    return error === undefined ? Promise.resolve("done") : Promise.reject(error());
  }).catch((error: unknown) => codeOf(error));
  await clock.advance(5000);
  return { result: await work, tries };
}

it.each([
  { name: "nothing can have been sent", errors: [refused], writes: true, code: "UNAVAILABLE" },
  {
    name: "a write may have arrived in an early attempt",
    errors: [uncertain, refused],
    writes: true,
    code: "OUTCOME_UNKNOWN",
  },
  { name: "a read may have arrived", errors: [uncertain], writes: false, code: "UNAVAILABLE" },
  {
    name: "the server asks to wait",
    errors: [() => reply("LOADING Redis is loading the dataset in memory")],
    writes: true,
    code: "UNAVAILABLE",
  },
  {
    name: "the script has a fault",
    errors: [() => reply("ERR user_script:1: boom")],
    writes: true,
    code: "INTERNAL",
  },
])("$name: $code after the deadline", async ({ errors, writes, code }) => {
  const { result, tries } = await attempt(errors, writes);

  expect(result).toBe(code);
  expect(tries).toBeLessThan(20);
});

it("the lease that ends stops the attempts with its reason", async () => {
  const clock = new FakeClock();
  const lost = new AbortController();
  const options = { what: "appending", deadlineMs: 60_000, writes: true, signal: lost.signal };

  const work = withRetry({ clock, rng: createSeededRng() }, options, () =>
    Promise.reject(uncertain()),
  ).catch((error: unknown) => error);
  await clock.advance(1000);
  const reason = new Error("lost");
  lost.abort(reason);

  expect(await work).toBe(reason);
});
