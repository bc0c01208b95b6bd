import { describe, expect, it } from "@jest/globals";
import { Redactor } from "../../redaction.ts";
import { SplitDeltas } from "./split-deltas.ts";

const VALUE = "CNRY-split-value-0123456789";
const newDeltas = () => new SplitDeltas(new Redactor(() => [{ id: "k", value: VALUE }]));

function delta(type: string, field: string, text: string, index = 0) {
  return { type: "content_block_delta", index, delta: { type, [field]: text } };
}
const text = (piece: string, index = 0) => delta("text_delta", "text", piece, index);
const stop = (index = 0) => ({ type: "content_block_stop", index });

interface Delta {
  index?: number;
  delta?: Record<string, string>;
}

/** What a reader of one block puts together. */
function joined(events: readonly unknown[], field: string, index = 0): string {
  return (events as Delta[])
    .filter((event) => event.index === index)
    .map((event) => event.delta?.[field] ?? "")
    .join("");
}

describe("SplitDeltas", () => {
  it.each([
    ["text_delta", "text"],
    ["input_json_delta", "partial_json"],
    ["thinking_delta", "thinking"],
  ])("takes a value out of %s events, cut anywhere", (type, field) => {
    const whole = `<${VALUE}>`;
    for (let cut = 1; cut < whole.length; cut += 1) {
      const deltas = newDeltas();
      const given = [whole.slice(0, cut), whole.slice(cut)].map((part) => delta(type, field, part));

      const out = [...given, stop()].flatMap((event) => deltas.cleaned(event));

      expect(joined(out, field)).toBe("<[redacted:k]>");
      expect(out.at(-1)).toEqual(stop());
    }
  });

  it("passes on what is not the beginning of a value at once, and as it was", () => {
    const events = [text("one "), text("two"), { type: "ping" }, stop()];
    const deltas = newDeltas();

    expect(events.map((event) => deltas.cleaned(event))).toEqual(events.map((event) => [event]));
  });

  it.each([
    ["its block's end", stop()],
    ["the message's last word", { type: "message_delta", delta: { stop_reason: "end_turn" } }],
    ["the message's end", { type: "message_stop" }],
    ["an error", { type: "error", error: { type: "overloaded_error" } }],
  ])("gives back what waited, before %s", (_name, event) => {
    const deltas = newDeltas();

    expect(deltas.cleaned(text("see CNRY-spl"))).toEqual([text("see ")]);
    expect(deltas.cleaned(event)).toEqual([text("CNRY-spl"), event]);
    expect(deltas.rest()).toEqual([]);
  });

  it("gives back what waited when the stream ends without a word", () => {
    const deltas = newDeltas();
    deltas.cleaned(text("CNRY-"));

    expect(deltas.rest()).toEqual([text("CNRY-")]);
  });

  it("keeps blocks apart", () => {
    const deltas = newDeltas();
    const half = VALUE.slice(0, 9);
    const events = [text(half, 0), text("other", 1), text(VALUE.slice(9), 0), stop(1), stop(0)];

    const out = events.flatMap((event) => deltas.cleaned(event));

    expect(joined(out, "text", 0)).toBe("[redacted:k]");
    expect(joined(out, "text", 1)).toBe("other");
  });

  it.each([
    ["a delta of another kind", delta("signature_delta", "signature", VALUE)],
    [
      "a text that is none",
      { type: "content_block_delta", index: 0, delta: { type: "text_delta" } },
    ],
    ["a delta that is none", { type: "content_block_delta", index: VALUE, delta: null }],
    ["a list", [VALUE]],
    ["a string", VALUE],
  ])("searches %s as it is", (_name, event) => {
    const out = JSON.stringify(newDeltas().cleaned(event));

    expect(out).not.toContain(VALUE);
  });
});
