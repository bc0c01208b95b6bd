import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { Dispatcher } from "undici";
import { AppError } from "../../../runtime/errors.ts";
import type { Exchange } from "../../exchange.ts";
import { parseJsonText } from "../../json-text.ts";
import { MAX_JSON_DEPTH, SIZES } from "../../limits.ts";
import type { Redactor } from "../../redaction.ts";
import { Utf8Text, unusableAnswer, upstreamError } from "../../upstream-errors.ts";
import { SplitDeltas } from "./split-deltas.ts";

const WHAT = "the model endpoint";

type Body = Dispatcher.ResponseData["body"];

/**
 * A whole answer as its reader will read it: JSON is searched after it is decoded, so that no escape
 * hides a value. Throws UPSTREAM_REFUSED for what is not text, or too much of it.
 */
export async function readAnswer(
  body: Body,
  exchange: Exchange,
  redactor: Redactor,
): Promise<string> {
  const decoder = new Utf8Text(WHAT);
  let text = "";
  try {
    for await (const chunk of body) {
      exchange.memory?.add(chunk.length);
      text += decoder.push(chunk);
      if (text.length > SIZES.jsonAnswer) throw tooLong("a whole answer", SIZES.jsonAnswer);
    }
    text += decoder.end();
  } catch (error) {
    throw upstreamError(WHAT, error);
  }
  const json = jsonOf(text);
  return json === undefined ? redactor.text(text) : JSON.stringify(redactor.json(json.value));
}

/**
 * An event stream, one event in and one event out, each read before it is passed on. Text that comes in
 * pieces is searched across them. Throws UPSTREAM_REFUSED.
 */
export async function relayModelEvents(
  body: Body,
  exchange: Exchange,
  redactor: Redactor,
  until: AbortSignal,
): Promise<void> {
  const deltas = new SplitDeltas(redactor);
  const decoder = new Utf8Text(WHAT);
  let frames = "";
  let isOver = false;
  const parser = createParser({
    maxBufferSize: SIZES.sseEvent,
    onEvent: (event) => {
      const json = jsonOf(event.data);
      // The rest of a stream that broke off inside an event is no event.
      if (isOver && json === undefined) return;
      if (json === undefined) frames += frameOf(event, redactor.text(event.data), redactor);
      else for (const value of deltas.cleaned(json.value)) frames += jsonFrame(event, value);
    },
    onComment: () => {
      frames += ":\n\n";
    },
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") throw tooLong("an event", SIZES.sseEvent);
    },
  });
  const jsonFrame = (event: EventSourceMessage, value: unknown) =>
    frameOf(event, JSON.stringify(value), redactor);
  const pass = async () => {
    const ready = frames;
    frames = "";
    await exchange.write(ready, until);
    if (ready !== "") exchange.memory?.release();
  };
  try {
    for await (const chunk of body) {
      try {
        exchange.memory?.add(chunk.length);
        parser.feed(decoder.push(chunk));
      } finally {
        // What was good before a bad event is passed on before the stream ends.
        await pass();
      }
    }
    isOver = true;
    // Some endpoints leave the last empty line out.
    parser.feed(`${decoder.end()}\n\n`);
  } catch (error) {
    throw upstreamError(WHAT, error);
  }
  for (const value of deltas.rest()) frames += jsonFrame({ data: "" }, value);
  await pass();
}

function frameOf({ event, id }: Partial<EventSourceMessage>, data: string, redactor: Redactor) {
  const field = (name: string, value: string | undefined) =>
    value === undefined || value === "" ? "" : `${name}: ${redactor.text(value)}\n`;
  const lines = data.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
  return `${field("event", event)}${field("id", id)}${lines.join("")}\n`;
}

function jsonOf(text: string): { value: unknown } | undefined {
  try {
    return { value: parseJsonText(text, MAX_JSON_DEPTH) };
  } catch (error) {
    // What costs too much here would cost its reader as much.
    if (!(error instanceof AppError) || error.details["limit"] === undefined) return undefined;
    throw unusableAnswer(`${WHAT} answered with too much: ${error.message}`);
  }
}

function tooLong(what: string, limit: number): Error {
  return unusableAnswer(`${what} of ${WHAT} is longer than ${limit} bytes`, { limit });
}
