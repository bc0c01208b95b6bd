import { describe, expect, it } from "@jest/globals";
import { derivedSessionId, parseSessionId } from "./ids.ts";
import { checkRef, partitionKeys, refOfMember, sessionKeys } from "./keys.ts";
import { candidateCode, findPoolCode, slotOf } from "./pool-code.ts";
import type { PoolConfig } from "./session-log.ts";

const ID = "sesn_abcd0f_00000000000000000000000000";

describe("keys", () => {
  it("are those of the design, and all of a session share a slot", () => {
    const keys = sessionKeys({ tenant: "team-a", id: ID });

    expect(keys).toEqual({
      prefix: "drover:{abcd.0f}:",
      due: "drover:{abcd.0f}:q:due",
      bell: "drover:{abcd.0f}:q:bell",
      hands: "drover:{abcd.0f}:q:hands",
      hbell: "drover:{abcd.0f}:q:hbell",
      state: "drover:{abcd.0f}:q:state",
      sbell: "drover:{abcd.0f}:q:sbell",
      arch: "drover:{abcd.0f}:q:arch",
      workers: "drover:{abcd.0f}:q:w",
      alive: "drover:{abcd.0f}:q:alive",
      member: `team-a:${ID}`,
      meta: `drover:{abcd.0f}:team-a:${ID}:m`,
      log: `drover:{abcd.0f}:team-a:${ID}:l`,
      idempotency: `drover:{abcd.0f}:team-a:${ID}:k`,
      preview: `drover:{abcd.0f}:team-a:${ID}:d`,
      payloads: `drover:{abcd.0f}:team-a:${ID}:b`,
      snapshot: `drover:s:{abcd.0f}:team-a:${ID}`,
      bound: `drover:s:{abcd.0f}:team-a:${ID}:x`,
      index: "drover:{abcd.0f}:team-a:ix",
      notify: `drover:{abcd.0f}:team-a:${ID}:n`,
      deltas: `drover:{abcd.0f}:team-a:${ID}:v`,
    });
    expect(partitionKeys("abcd", "0f").due).toBe(keys.due);
    expect(refOfMember(keys.member)).toEqual({ tenant: "team-a", id: ID });
  });

  it.each([
    { tenant: "team-a", id: "sesn_abcd0f_short" },
    { tenant: "team-a", id: `${ID}:m` },
    { tenant: "team-a", id: "../../etc/passwd" },
    { tenant: "a:b", id: ID },
    { tenant: "..", id: ID },
    { tenant: "", id: ID },
    { tenant: "A", id: ID },
  ])("refuse $tenant / $id, which could name something else", (ref) => {
    expect(() => checkRef(ref)).toThrow(expect.objectContaining({ code: "SESSION_NOT_FOUND" }));
  });
});

describe("session ids", () => {
  it("the id of an object is the same every time and names its partition", () => {
    const pool = { code: "ab12", partitions: 16 };
    const ids = Array.from({ length: 400 }, (_, i) => derivedSessionId(`uid-${i}`, pool));

    expect(ids[7]).toBe(derivedSessionId("uid-7", pool));
    expect(new Set(ids).size).toBe(400);
    const partitions = new Set(ids.map((id) => parseSessionId(id).partition));
    expect(partitions.size).toBe(16);
    expect(Math.max(...[...partitions].map((each) => Number.parseInt(each, 16)))).toBe(15);
  });
});

describe("pool codes", () => {
  it("slots are those of Redis Cluster", () => {
    // Values of the cluster specification and of CLUSTER KEYSLOT.
    expect(slotOf("123456789")).toBe(0x31c3);
    expect(slotOf("foo")).toBe(12_182);
  });

  it.each([3, 6])("the tags of a pool spread evenly over %d masters", async (masters) => {
    const pool = { uid: "u1", name: "p", partitions: 16, commit: { mode: "fsync" } } as const;

    const { code } = await findPoolCode(pool, (config) => Promise.resolve(config));

    const load = new Map<number, number>();
    for (let p = 0; p < 16; p += 1) {
      const slot = slotOf(`${code}.${p.toString(16).padStart(2, "0")}`);
      const master = Math.floor((slot * masters) / 16_384);
      load.set(master, (load.get(master) ?? 0) + 1);
    }
    expect(load.size).toBe(masters);
    expect(Math.max(...load.values()) - Math.min(...load.values())).toBeLessThanOrEqual(1);
  });

  it("a code that another pool has is passed over", async () => {
    const pool = { uid: "u1", name: "p", partitions: 1, commit: { mode: "fsync" } } as const;
    const taken = candidateCode("u1", 0);
    const other: PoolConfig = { ...pool, uid: "u2", code: taken };

    const found = await findPoolCode(pool, (config) =>
      Promise.resolve(config.code === taken ? other : config),
    );

    expect(found.code).toBe(candidateCode("u1", 1));
  });

  it.each([0, 257, 1.5])("%d partitions are refused", async (partitions) => {
    const pool = { uid: "u", name: "p", partitions, commit: { mode: "fsync" } } as const;

    const refused = findPoolCode(pool, (config) => Promise.resolve(config));

    await expect(refused).rejects.toMatchObject({ code: "INPUT_INVALID" });
  });
});
