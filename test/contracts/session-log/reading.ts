import { describe, expect, it } from "@jest/globals";
import { event, message, newRef, newSession } from "../../builders/sessions.ts";
import { all, type SetUp } from "./rig.ts";

export function describeReading(setUp: SetUp): void {
  describe("reading", () => {
    it("slices of the log are read forwards and backwards between exclusive bounds", async () => {
      const { log } = await setUp();
      const ref = newRef();
      const events = Array.from({ length: 12 }, (_, i) => message(`${i + 1}`));
      await log.createSession(newSession(ref, { events }));
      const seqs = async (query: Parameters<typeof log.getEvents>[1]) =>
        (await all(log.getEvents(ref, query))).map(({ seq }) => seq);

      expect(await seqs({ after: 3, before: 7 })).toEqual([4, 5, 6]);
      expect(await seqs({ after: 3, before: 7, reverse: true })).toEqual([6, 5, 4]);
      expect(await seqs({ reverse: true, limit: 3 })).toEqual([12, 11, 10]);
      expect(await seqs({ after: 10, limit: 5 })).toEqual([11, 12]);
      expect(await seqs({ after: 12 })).toEqual([]);
      expect(await seqs({ after: 40 })).toEqual([]);
      expect(await seqs({ before: 1 })).toEqual([]);
      expect(await seqs({ after: 7, before: 7 })).toEqual([]);
      expect(await seqs({ limit: 0 })).toEqual([]);
    });

    it("a look through a log may leave out the data of other types", async () => {
      const { log } = await setUp();
      const ref = newRef();
      const events = [message("a"), event("sandbox.lost", { generation: 1 }), message("b")];
      await log.createSession(newSession(ref, { events }));
      const dataOf = new Set(["sandbox.lost"]);

      const found = await all(log.getEvents(ref, { dataOf }));

      expect(found.map(({ type }) => type)).toEqual(events.map(({ type }) => type));
      expect(found[1]?.data).toEqual({ generation: 1 });
    });

    it("a log longer than a page is read whole in both directions", async () => {
      const { log } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref, { events: [] }));
      for (let i = 0; i < 4; i += 1) {
        const batch = Array.from({ length: 300 }, (_, j) => message(`${i * 300 + j}`));
        await log.emitEvents(ref, batch, { idempotencyKey: `${i}`, durability: "applied" });
      }

      const forwards = (await all(log.getEvents(ref))).map(({ seq }) => seq);
      const backwards = (await all(log.getEvents(ref, { reverse: true }))).map(({ seq }) => seq);

      expect(forwards).toEqual(Array.from({ length: 1200 }, (_, i) => i + 1));
      expect(backwards).toEqual(forwards.toReversed());
    });
  });
}
