import { expect, it } from "@jest/globals";
import { ReadCursor } from "./read-cursor.ts";

const at = (seq: number) => ({ seq, id: `e${seq}`, chain: `c${seq}` });

it("reading in order moves position and seen together", () => {
  const cursor = new ReadCursor();
  for (const seq of [1, 2, 3]) cursor.read(at(seq), 0);

  expect(cursor.position).toEqual(at(3));
  expect(cursor.seen).toBe(3);
});

it("an own batch behind unread events moves the position only, until they are read", () => {
  const cursor = new ReadCursor();
  cursor.read(at(1), 0);

  expect(cursor.wrote({ first: 4, last: at(5) })).toBe(true);
  expect(cursor.position).toEqual(at(5));
  expect(cursor.seen).toBe(1);
  cursor.read(at(2), 1);
  expect(cursor.seen).toBe(2);
  cursor.read(at(3), 1);
  expect(cursor.seen).toBe(5);
});

it("several own batches join when the gaps between them are read", () => {
  const cursor = new ReadCursor();
  cursor.wrote({ first: 2, last: at(2) });
  cursor.wrote({ first: 4, last: at(4) });
  cursor.read(at(1), 0);

  expect(cursor.seen).toBe(2);
  cursor.read(at(3), 2);
  expect(cursor.seen).toBe(4);
});

it("a first read may start where the holder's knowledge ends", () => {
  const cursor = new ReadCursor();
  cursor.read(at(11), 10);

  expect(cursor.seen).toBe(11);
});

it("a later read that skips events does not hide them", () => {
  const cursor = new ReadCursor();
  cursor.read(at(1), 0);
  cursor.read(at(7), 6);

  expect(cursor.position).toEqual(at(7));
  expect(cursor.seen).toBe(1);
});

it("reading old events again moves nothing back", () => {
  const cursor = new ReadCursor();
  for (const seq of [1, 2, 3]) cursor.read(at(seq), 0);
  cursor.read(at(1), 0);

  expect(cursor.position).toEqual(at(3));
  expect(cursor.seen).toBe(3);
});
