/** A seeded generator of 32-bit numbers (mulberry32), enough for choosing where to damage a file. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** Kinds of damage, in turn. */
export const mutations = ['truncate', 'bit flips', 'header damage', 'zeroed block', 'doubled block'] as const;

/** A damaged copy of `bytes`. The same seed gives the same damage. */
export function mutate(bytes: Uint8Array, kind: (typeof mutations)[number], seed: number): Uint8Array {
  const next = seeded(seed);
  const below = (limit: number): number => next() % Math.max(1, limit);
  const out = Uint8Array.from(bytes);
  switch (kind) {
    case 'truncate':
      return out.subarray(0, 1 + below(out.length - 1));
    case 'bit flips': {
      for (let flips = 1 + below(64); flips > 0; flips--) {
        const at = below(out.length);
        out[at] = (out[at] ?? 0) ^ (1 << below(8));
      }
      return out;
    }
    case 'header damage': {
      // Half the containers have their index at the front, half at the end.
      const reach = Math.min(out.length, 2048);
      const from = below(2) === 0 ? 0 : out.length - reach;
      for (let hits = 1 + below(8); hits > 0; hits--) {
        const extreme = [0, 0xff, 0x7f, 0x80][below(4)] ?? 0;
        const at = from + below(reach);
        out.fill(below(2) === 0 ? extreme : below(256), at, Math.min(out.length, at + 1 + below(4)));
      }
      return out;
    }
    case 'zeroed block': {
      const at = below(out.length);
      return out.fill(0, at, at + 1 + below(4096));
    }
    case 'doubled block': {
      const at = below(out.length);
      const block = out.subarray(at, at + 1 + below(4096));
      const doubled = new Uint8Array(out.length + block.length);
      doubled.set(out.subarray(0, at + block.length));
      doubled.set(out.subarray(at), at + block.length);
      return doubled;
    }
  }
}
