import { type Rng, uuidv7 } from "../../src/runtime/rng.ts";

/** mulberry32: small, fast, the same run for the same seed. Ids carry a rising fake time, so they sort as made. */
export function createSeededRng(seed = 1): Rng {
  let state = seed >>> 0;
  let made = 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    id(prefix) {
      made += 1;
      const random = Uint8Array.from({ length: 10 }, () => Math.floor(next() * 256));
      return `${prefix}_${uuidv7(1_700_000_000_000 + made, random)}`;
    },
  };
}
