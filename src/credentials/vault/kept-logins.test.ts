import { setImmediate as turn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import { Secret } from "../../runtime/secret.ts";
import { KeptLogins } from "./kept-logins.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** Logins at a vault whose tokens live an hour. */
function keptLogins() {
  const clock = new FakeClock();
  const logins = new KeptLogins({ clock });
  const given: WeakRef<Secret>[] = [];
  const login = async () => {
    const token = new Secret("hvs.token");
    given.push(new WeakRef(token));
    return { token, leaseSeconds: 3600, renewable: false };
  };
  const use = async () => await logins.with("session", login, async () => {});
  return { clock, given, use };
}

describe("kept logins", () => {
  it("serve many reads with one login", async () => {
    const { clock, given, use } = keptLogins();
    for (let minute = 0; minute < 30; minute += 1) {
      await use();
      await clock.advance(30_000);
    }

    expect(given).toHaveLength(1);
  });

  it("leave the memory a minute after their last use", async () => {
    const { clock, given, use } = keptLogins();
    await use();
    await clock.advance(75_000);
    await turn();
    collect();
    await turn();

    expect(given.map((token) => token.deref())).toEqual([undefined]);
    await use();
    expect(given).toHaveLength(2);
  });
});
