/**
 * Some texts made ready to be looked for all at once: a trie with fallbacks (Aho and Corasick), so that
 * a step costs the same however many there are. A node stands for how much of which text has been read.
 */

/** Visible ASCII and what else a value may hold: only codes below this are stored. */
export const CODES = 128;
export const ROOT = 0;

export class ValueTrie {
  /** Length of the shortest text; no shorter one can hold any. */
  readonly shortest: number;
  readonly longest: number;
  /** 1 for a code with which a text begins. */
  readonly begins = new Uint8Array(CODES);
  /** Of nodes, by their number. */
  readonly #parent: Int32Array;
  readonly #code: Uint8Array;
  readonly #fallback: Int32Array;
  readonly #found: Int32Array;
  readonly #hasMore: Uint8Array;
  readonly #ids = new Map<number, string>();
  /** Children of the root by code, and of all nodes by node and code: an open hash table. */
  readonly #first = new Int32Array(CODES);
  readonly #keys: Int32Array;
  readonly #children: Int32Array;
  readonly #mask: number;
  #size = 1;

  /** Every text with the id that stands for it; of two ids of one text the first counts. */
  constructor(texts: ReadonlyMap<string, string>) {
    const lengths = [...texts.keys()].map((text) => text.length);
    const nodes = lengths.reduce((sum, length) => sum + length, 1);
    this.shortest = Math.min(...lengths);
    this.longest = Math.max(0, ...lengths);
    this.#parent = new Int32Array(nodes);
    this.#code = new Uint8Array(nodes);
    this.#fallback = new Int32Array(nodes);
    this.#found = new Int32Array(nodes);
    this.#hasMore = new Uint8Array(nodes);
    const slots = 2 ** Math.ceil(Math.log2(nodes * 2));
    this.#keys = new Int32Array(slots);
    this.#children = new Int32Array(slots);
    this.#mask = slots - 1;
    for (const [text, id] of texts) this.#add(text, id);
    this.#linkFallbacks();
  }

  /** The node after one more character. */
  step(node: number, code: number): number {
    if (code >= CODES) return ROOT;
    let from = node;
    while (from !== ROOT) {
      const child = this.#child(from, code);
      if (child !== ROOT) return child;
      from = this.#fallback[from] ?? ROOT;
    }
    return this.#first[code] ?? ROOT;
  }

  /** The node of the longest text that ends here, or the root. */
  found(node: number): number {
    return this.#found[node] ?? ROOT;
  }

  id(node: number): string {
    return this.#ids.get(node) ?? "credential";
  }

  /** The node, or its longest fallback, after which more of a text may come; else the root. */
  unfinished(node: number): number {
    let at = node;
    while (at !== ROOT && this.#hasMore[at] === 0) at = this.#fallback[at] ?? ROOT;
    return at;
  }

  parent(node: number): number {
    return this.#parent[node] ?? ROOT;
  }

  /** The character that leads from the parent to the node. */
  code(node: number): number {
    return this.#code[node] ?? 0;
  }

  #child(node: number, code: number): number {
    return this.#children[this.#slot(node, code)] ?? ROOT;
  }

  /** Where the child is in the table, or would be. */
  #slot(node: number, code: number): number {
    const key = node * CODES + code + 1;
    let slot = Math.imul(key, 0x9e37_79b1) >>> 0;
    slot = (slot ^ (slot >>> 15)) & this.#mask;
    while (this.#keys[slot] !== 0 && this.#keys[slot] !== key) slot = (slot + 1) & this.#mask;
    return slot;
  }

  #add(text: string, id: string): void {
    let node = ROOT;
    for (let at = 0; at < text.length; at += 1) {
      const code = text.charCodeAt(at) % CODES;
      const slot = this.#slot(node, code);
      let child = this.#children[slot] ?? ROOT;
      if (child === ROOT) {
        child = this.#size;
        this.#size += 1;
        this.#keys[slot] = node * CODES + code + 1;
        this.#children[slot] = child;
        this.#parent[child] = node;
        this.#code[child] = code;
        this.#hasMore[node] = 1;
        if (node === ROOT) [this.#first[code], this.begins[code]] = [child, 1];
      }
      node = child;
    }
    if (this.#found[node] === ROOT) this.#ids.set(node, id);
    this.#found[node] = node;
  }

  /** By depth, so that a fallback is known before those of longer texts are. */
  #linkFallbacks(): void {
    let level = [...this.#first].filter((child) => child !== ROOT);
    const byParent = Map.groupBy(
      Array.from({ length: this.#size - 1 }, (_, index) => index + 1),
      (node) => this.#parent[node] ?? ROOT,
    );
    while (level.length > 0) {
      const next: number[] = [];
      for (const node of level) {
        if (this.#found[node] === ROOT) this.#found[node] = this.found(this.#fallback[node] ?? 0);
        for (const child of byParent.get(node) ?? []) {
          this.#fallback[child] = this.step(this.#fallback[node] ?? ROOT, this.code(child));
          next.push(child);
        }
      }
      level = next;
    }
  }
}
