import type { ToolPinKey, ToolPinStore, ToolPins } from "../protocol/proxy-ports.ts";

/** Pins for as long as the process lives: local mode, in which a run is the whole life of an agent. */
export class MemoryToolPins implements ToolPinStore {
  readonly #pins = new Map<string, ToolPins>();

  async readPins(key: ToolPinKey): Promise<ToolPins | null> {
    return this.#pins.get(textOf(key)) ?? null;
  }

  async keepPins(key: ToolPinKey, pins: ToolPins): Promise<ToolPins> {
    const kept = this.#pins.get(textOf(key)) ?? pins;
    this.#pins.set(textOf(key), kept);
    return kept;
  }
}

function textOf({ tenant, revision, server }: ToolPinKey): string {
  return `${tenant} ${revision} ${server}`;
}
