import { type Key, permutation } from '../../random/philox.ts';

/**
 * Smooth random functions for textures (value noise on a lattice of period 256). Values are from -1 to 1 and change over
 * a distance of about 1.
 */
export class Noise {
  readonly #order: Uint32Array;

  /** The noise of a key. */
  constructor(key: Key) {
    const order = permutation(key, 256);
    this.#order = Uint32Array.from({ length: 512 }, (_, i) => order[i & 255] ?? 0);
  }

  /** Along a line. */
  line(x: number): number {
    const cell = Math.floor(x);
    const t = x - cell;
    const a = this.#order[cell & 255] ?? 0;
    const b = this.#order[(cell + 1) & 255] ?? 0;
    return (a + (b - a) * t * t * (3 - 2 * t)) / 127.5 - 1;
  }

  /** Over a plane. */
  plane(x: number, y: number): number {
    const order = this.#order;
    const column = Math.floor(x);
    const row = Math.floor(y);
    const s = x - column;
    const t = y - row;
    const u = s * s * (3 - 2 * s);
    const v = t * t * (3 - 2 * t);
    const left = order[column & 255] ?? 0;
    const right = order[(column + 1) & 255] ?? 0;
    const r = row & 255;
    const a = order[left + r] ?? 0;
    const b = order[right + r] ?? 0;
    const c = order[left + r + 1] ?? 0;
    const d = order[right + r + 1] ?? 0;
    const top = a + (b - a) * u;
    return (top + (c + (d - c) * u - top) * v) / 127.5 - 1;
  }
}
