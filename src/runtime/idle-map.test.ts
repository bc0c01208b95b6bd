import { setImmediate as turn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { IdleMap } from "./idle-map.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

/** What is not held by anybody is gone after it. */
async function collectGarbage(): Promise<void> {
  await turn();
  collect();
  await turn();
}

function mapOf(max: number) {
  const clock = new FakeClock();
  return { clock, map: new IdleMap<{ name: string }>({ max, idleMs: 60_000, clock }) };
}

describe("IdleMap", () => {
  it("lets go of what was not used, without being asked, and keeps what was", async () => {
    const { clock, map } = mapOf(8);
    map.set("idle", { name: "idle" });
    map.set("used", { name: "used" });
    await clock.advance(50_000);
    expect(map.get("used")).toEqual({ name: "used" });

    await clock.advance(45_000);
    await collectGarbage();

    expect(map.get("idle")).toBeUndefined();
    expect(map.get("used")).toEqual({ name: "used" });
  });

  it("sets no timer when nothing is left", async () => {
    const { clock, map } = mapOf(8);
    map.set("idle", { name: "idle" });
    await clock.advance(75_000);
    await collectGarbage();
    await clock.advance(60_000);

    expect(clock.pending).toBe(0);
  });

  it("finds again what somebody still holds, so that there are never two of one", async () => {
    const { clock, map } = mapOf(8);
    const held = { name: "held" };
    map.set("held", held);
    await clock.advance(600_000);
    await collectGarbage();

    expect(map.get("held")).toBe(held);
  });

  it("lets go of the one that was used longest ago when there are too many", async () => {
    const { map } = mapOf(2);
    map.set("a", { name: "a" });
    map.set("b", { name: "b" });
    map.get("a");
    map.set("c", { name: "c" });
    await collectGarbage();

    expect(["a", "b", "c"].map((key) => map.get(key)?.name)).toEqual(["a", undefined, "c"]);
  });

  it("forgets what was deleted, also when somebody holds it", () => {
    const { map } = mapOf(2);
    const held = { name: "held" };
    map.set("held", held);
    map.delete("held");

    expect(map.get("held")).toBeUndefined();
  });
});
