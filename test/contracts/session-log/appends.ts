import { describe, expect, it } from "@jest/globals";
import { parseExact } from "../../../src/protocol/exact-json.ts";
import { hasCode } from "../../../src/runtime/errors.ts";
import { START, type StoredEvent } from "../../../src/sessions/session-log.ts";
import { event, message, newRef, newSession, snapshotOf } from "../../builders/sessions.ts";
import { all, codeOf, errorOf, type SetUp } from "./rig.ts";

export function describeAppends(setUp: SetUp): void {
  describe("creation and external appends", () => {
    it("a created session holds its first events, its snapshot and status created", async () => {
      const { log } = await setUp();
      const ref = newRef();
      const session = newSession(ref, { events: [message("one"), message("two")] });

      const { created, head } = await log.createSession(session);

      expect(created).toBe(true);
      expect(head).toMatchObject({ status: "created", why: "", pos: { seq: 2 } });
      expect(head.pos.id).toBe(session.events[1]?.id);
      expect(await log.getSession(ref)).toEqual({ head, snapshot: snapshotOf(ref) });
      const events = await all(log.getEvents(ref));
      expect(
        events.map(({ seq, id, type, epoch, data }) => ({ seq, id, type, epoch, data })),
      ).toEqual(session.events.map((each, i) => ({ seq: i + 1, epoch: 0, ...each })));
    });

    it("creating again changes nothing and answers the log as it is", async () => {
      const { log } = await setUp();
      const ref = newRef();
      const first = await log.createSession(newSession(ref));

      const again = await log.createSession(newSession(ref, { events: [message("other")] }));

      expect(again).toEqual({ created: false, head: first.head });
    });

    it("a session can start without events", async () => {
      const { log } = await setUp();
      const ref = newRef();

      const { head } = await log.createSession(newSession(ref, { events: [], wake: false }));

      expect(head.pos).toEqual(START);
      expect(await all(log.getEvents(ref))).toEqual([]);
    });

    it("appends are contiguous, in order, and their times never go back", async () => {
      const { log } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));

      const appends = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          log.emitEvents(ref, [message(`${i}a`), message(`${i}b`)], { idempotencyKey: `k${i}` }),
        ),
      );

      const events = await all(log.getEvents(ref));
      expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: 41 }, (_, i) => i + 1));
      expect(appends.every(({ first, last }) => last === first + 1)).toBe(true);
      expect(events.every(({ ts }, i) => ts >= (events[i - 1]?.ts ?? 0))).toBe(true);
    });

    it("a repeated idempotency key answers the earlier place and appends nothing", async () => {
      const { log } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const batch = [message("a"), message("b")];
      const first = await log.emitEvents(ref, batch, { idempotencyKey: "k" });
      await log.emitEvents(ref, [message("c")], { idempotencyKey: "l" });

      const again = await log.emitEvents(ref, batch, { idempotencyKey: "k" });

      expect(first).toEqual({ first: 2, last: 3, duplicate: false });
      expect(again).toEqual({ first: 2, last: 3, duplicate: true });
      expect(await all(log.getEvents(ref))).toHaveLength(4);
    });

    it("an unknown session is SESSION_NOT_FOUND for every verb", async () => {
      const { log, operator, backend } = await setUp();
      const ref = newRef();

      expect(await codeOf(log.emitEvents(ref, [message("x")], { idempotencyKey: "k" }))).toBe(
        "SESSION_NOT_FOUND",
      );
      expect(await codeOf(log.wake(ref))).toBe("SESSION_NOT_FOUND");
      expect(await codeOf(all(log.getEvents(ref)))).toBe("SESSION_NOT_FOUND");
      expect(await log.getSession(ref)).toBeNull();
      expect(await operator.statusOf([ref])).toEqual([null]);
      expect(await operator.snapshotOf(ref)).toBeNull();
      expect(
        await backend.release(ref, { token: "1.x", seen: 0, release: { kind: "requeue" } }),
      ).toEqual({
        word: "NOSESSION",
      });
    });

    it("an event or a batch over the limit is refused with its size, and nothing is written", async () => {
      const { log } = await setUp();
      const ref = newRef();
      await log.createSession(newSession(ref));
      const big = message("x".repeat(256 * 1024));
      const many = Array.from({ length: 5 }, () => message("x".repeat(250 * 1024)));

      const single = await errorOf(log.emitEvents(ref, [big], { idempotencyKey: "a" }));
      const batch = await errorOf(log.emitEvents(ref, many, { idempotencyKey: "b" }));

      expect(hasCode(single, "SESSION_EVENT_TOO_LARGE")).toBe(true);
      expect(String(single)).toContain("262144");
      expect(hasCode(batch, "SESSION_EVENT_TOO_LARGE")).toBe(true);
      expect(String(batch)).toContain("1048576");
      expect(await all(log.getEvents(ref))).toHaveLength(1);
    });

    it("large events come back whole", async () => {
      const { log, rig } = await setUp();
      const ref = newRef();
      const long = message(`${"ä€𝄞\n".repeat(20_000)}end`);
      await log.createSession(newSession(ref, { events: [long] }));
      const batch = Array.from({ length: 4 }, (_, i) => message(`${i}${"y".repeat(240 * 1024)}`));
      await log.emitEvents(ref, batch, { idempotencyKey: "k" });
      const lease = await rig.worker("w1").claimOne();
      const own = event("tool.result", { content: "z".repeat(100_000) });
      await rig.readAll(lease);
      await lease.emitEvents([own]);

      const events = await all(log.getEvents(ref));

      expect(events.map(({ data }) => data)).toEqual([long, ...batch, own].map(({ data }) => data));
    });

    it("unusual text, numbers and empty containers survive", async () => {
      const { log } = await setUp();
      const ref = newRef();
      const odd = event("session.created", {
        text: '\u0000\u001f"\\\u2028 \ud83d\ude00',
        big: 2 ** 53 - 1,
        small: -1.5e-7,
        list: [],
        map: {},
        nothing: null,
      });

      await log.createSession(newSession(ref, { events: [odd] }));

      expect((await all(log.getEvents(ref)))[0]?.data).toEqual(odd.data);
    });

    it("numbers keep their digits, through every reader", async () => {
      const { log, operator, rig } = await setUp();
      const ref = newRef();
      const text = '{"id":1234567890123456789,"price":10.0,"far":[1e400,{"small":-0}]}';
      const exact = event("user.message", { content: [], input: parseExact(text) });

      await log.createSession(newSession(ref));
      await log.emitEvents(ref, [exact], { idempotencyKey: exact.id });
      await operator.emitEvents(ref, [exact], { idempotencyKey: `${exact.id}-again` });
      const lease = await rig.worker("a").claimOne();
      await lease.emitEvents([{ ...exact, id: `${exact.id}-3` }], {});

      const inputs = async (events: AsyncIterable<StoredEvent>) =>
        (await all(events)).flatMap(({ data }) =>
          isRecord(data) && data["input"] !== undefined ? [JSON.stringify(data["input"])] : [],
        );
      expect(await inputs(log.getEvents(ref))).toEqual([text, text, text]);
      expect(await inputs(lease.getEvents())).toEqual([text, text, text]);
    });
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
