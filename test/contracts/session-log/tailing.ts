import { describe, expect, it } from "@jest/globals";
import { START } from "../../../src/sessions/session-log.ts";
import { message, newRef, newSession } from "../../builders/sessions.ts";
import { all, type SetUp } from "./rig.ts";

export function describeTailing(setUp: SetUp): void {
  describe("tailing", () => {
    it("history is followed by live events without gap or repetition", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref, { events: [message("1"), message("2")] }));
      const tail = rig.tail(ref, null);
      await rig.until(() => tail.items.some(({ kind }) => kind === "caught-up"));

      for (let i = 3; i <= 30; i += 1) {
        await log.emitEvents(ref, [message(`${i}`)], { idempotencyKey: `${i}` });
      }
      await rig.until(() => tail.seqs().length >= 30);

      await tail.stop();
      expect(tail.seqs()).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
      expect(tail.items.filter(({ kind }) => kind === "caught-up")).toHaveLength(1);
    });

    it("a reader resumes after the position it has", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      const events = [message("1"), message("2"), message("3")];
      await log.createSession(newSession(ref, { events }));

      const [second = START] = await all(log.getEvents(ref, { after: 1, limit: 1 }));
      const tail = rig.tail(ref, second);
      await rig.until(() => tail.items.length >= 2);

      await tail.stop();
      expect(tail.items.map(({ kind }) => kind)).toEqual(["event", "caught-up"]);
      expect(tail.seqs()).toEqual([3]);
    });

    it.each([
      { name: "another event", lost: { id: "sevt_lost" } },
      { name: "the same event on another beginning", lost: { chain: "0123456789abcdef" } },
    ])(
      "a position where the log has $name is announced before the log is told again",
      async ({ lost }) => {
        const { log, rig } = await setUp();
        const ref = newRef();
        const events = [message("1"), message("2")];
        const { head } = await log.createSession(newSession(ref, { events }));

        const tail = rig.tail(ref, { ...head.pos, ...lost });
        await rig.until(() => tail.items.length >= 4);

        await tail.stop();
        expect(tail.items[0]).toEqual({ kind: "rewound", lastGood: START });
        expect(tail.seqs()).toEqual([1, 2]);
      },
    );

    it("live text reaches those who asked for it and is not stored", async () => {
      const { log, rig, pass } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const lease = await rig.worker("a").claimOne();
      const [with_, without] = [rig.tail(ref, null, true), rig.tail(ref, null)];
      await rig.until(() => [with_, without].every(({ items }) => items.length >= 2));
      await pass(200);

      lease.publishDelta("sevt_x", 0, "Hel");
      lease.publishDelta("sevt_x", 3, "lo");
      await rig.until(() => with_.items.length >= 4);

      await Promise.all([with_.stop(), without.stop()]);
      expect(with_.items.slice(2)).toEqual([
        { kind: "delta", eventId: "sevt_x", off: 0, text: "Hel" },
        { kind: "delta", eventId: "sevt_x", off: 3, text: "lo" },
      ]);
      expect(without.items).toHaveLength(2);
      expect(await all(log.getEvents(ref))).toHaveLength(1);
    });
  });
}
