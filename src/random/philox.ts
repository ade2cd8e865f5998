/**
 * Counter-based randomness: Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011).
 *
 * A key names a stream, a counter a place in it; nothing is stored between calls, so element `i` of a draw depends on the
 * key and `i` alone, and any part of a stream can be made again without what comes before it. Use one key per purpose
 * (`fold(key, 'noise')`): every draw from one key reads the same underlying words.
 *
 * All results are bit-identical on every platform. Integers and uniforms are exact arithmetic; normals need a logarithm,
 * a sine and a cosine, which ECMAScript leaves to the engine, so they are computed by polynomials here (`normal.ts`).
 */

import { boxMuller } from './normal.ts';
import { openVectorDraws, type VectorDraws } from './vector-draws.ts';

/** Names a random stream: two unsigned 32-bit words. Make one with {@link keyFromSeed}, derive others with {@link fold}. */
export interface Key {
  /** Low word, 0 to 2^32 - 1. */
  readonly k0: number;
  /** High word, 0 to 2^32 - 1. */
  readonly k1: number;
}

/** Where a draw starts in the stream of its key. */
export interface DrawOptions {
  /** Index of the first element drawn: `draw(key, n, {offset})` is `draw(key, offset + n)` less its first `offset` elements. Default 0. */
  readonly offset?: number;
}

/** Four unsigned 32-bit words: what Philox 4x32 takes as a counter and gives as a result. */
export type Words4 = readonly [number, number, number, number];

// The last counter word keeps draws, and the two ways of deriving keys, apart from each other.
const drawDomain = 0;
const foldIntegerDomain = 1;
const foldNameDomain = 2;

const two32 = 2 ** 32;
const wordsPerChunk = 4096;

/** Where long draws are made, a chunk at a time. */
type Chunk = Pick<VectorDraws, 'words' | 'values'> & {
  /** Makes words of blocks `first` to `first + count` of the key's draw stream. */
  readonly draw: (key: Key, first: number, count: number) => void;
  /** Turns so many words, a multiple of 4, into as many normals. */
  readonly boxMuller: (count: number) => void;
};

let openChunk: Chunk | undefined;

/** The Philox 4x32-10 bijection of `counter` under `key`: four uniform 32-bit words. Counter words are taken modulo 2^32. */
export function philox4x32(counter: Words4, key: Key): Words4 {
  const out = new Uint32Array(4);
  philoxBlocks(counter[0], counter[1], counter[2], counter[3], key, out, 1);
  return [out[0] ?? 0, out[1] ?? 0, out[2] ?? 0, out[3] ?? 0];
}

/**
 * The key of a seed: the low 64 bits of the seed in two's complement.
 *
 * Numbers and bigints of equal value give the same key.
 * @throws RangeError if `seed` is a number that is not a safe integer, or a bigint outside -2^63 to 2^64 - 1.
 */
export function keyFromSeed(seed: number | bigint): Key {
  if (typeof seed === 'number' && !Number.isSafeInteger(seed)) {
    throw new RangeError(`seed: ${seed} is not an integer of at most 53 bits; give an integer, or a bigint`);
  }
  const value = BigInt(seed);
  if (value < -(2n ** 63n) || value >= 2n ** 64n) {
    throw new RangeError(`seed: ${value} does not fit in 64 bits; give one from -2^63 to 2^64 - 1`);
  }
  const bits = BigInt.asUintN(64, value);
  return { k0: Number(bits & 0xffff_ffffn), k1: Number(bits >> 32n) };
}

/**
 * The child key of `key` for an integer (a step, a layer, a sample) or a name (a purpose, in UTF-16 code units).
 *
 * Different `data` give independent children; the integer 1 and the name '1' differ.
 * @throws RangeError if `data` is a number that is not a safe integer.
 */
export function fold(key: Key, data: number | string): Key {
  if (typeof data === 'string') return foldName(key, data);
  if (!Number.isSafeInteger(data)) {
    throw new RangeError(`fold: ${data} is not a safe integer; derive keys from integers or names`);
  }
  return childKey(key, data >>> 0, Math.floor(data / two32) >>> 0, 0, foldIntegerDomain);
}

/** `count` independent child keys of `key`: element `i` is `fold(key, i)`. */
export function split(key: Key, count: number): Key[] {
  return Array.from({ length: count }, (_, i) => fold(key, i));
}

/** `count` float32 values uniform in [0, 1), multiples of 2^-24. Element `i` reads word `i` of the stream. */
export function uniform(key: Key, count: number, options: DrawOptions = {}): Float32Array {
  return drawFloats(key, count, options, uniformFloats);
}

/**
 * `count` standard normal float32 values, by Box-Muller in float64 over word pairs `(2j, 2j + 1)`, which give elements
 * `2j` and `2j + 1`. The largest possible magnitude is 6.77 (the radius of the smallest 32-bit uniform).
 */
export function normal(key: Key, count: number, options: DrawOptions = {}): Float32Array {
  return drawFloats(key, count, options, (made, words) => made.boxMuller(words));
}

/**
 * `count` integers uniform in [0, bound). Element `i` scales 53 bits of words `2i` and `2i + 1`, so no value is more
 * than `bound * 2^-53` more likely, relatively, than another.
 * @throws RangeError if `bound` is not an integer from 1 to 2^32.
 */
export function randomInts(key: Key, count: number, bound: number, options: DrawOptions = {}): Uint32Array {
  checkBound(bound);
  const { offset = 0 } = options;
  checkRange(count, offset);
  const out = new Uint32Array(count);
  forEachFraction(key, offset, count, (i, fraction) => {
    out[i] = Math.floor(fraction * bound);
  });
  return out;
}

/**
 * A uniformly random ordering of 0 to `n - 1` (Fisher-Yates).
 * @throws RangeError if `n` is not an integer from 0 to 2^32 - 1.
 */
export function permutation(key: Key, n: number): Uint32Array {
  checkRange(n, 0);
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  // Draw `i` decides what stays at place `n - 1 - i`.
  forEachFraction(key, 0, Math.max(0, n - 1), (i, fraction) => {
    const last = n - 1 - i;
    const chosen = Math.floor(fraction * (last + 1));
    const moved = order[last] ?? 0;
    order[last] = order[chosen] ?? 0;
    order[chosen] = moved;
  });
  return order;
}

/**
 * Scalars drawn one after another from one key, for code that makes data.
 *
 * Every scalar takes exactly one 64-bit draw and {@link position} counts them, so a stream resumes at
 * `new RandomStream(key, position)`.
 */
export class RandomStream {
  /** The stream's key. */
  readonly key: Key;
  /** Draws made so far: a plain integer to store with a checkpoint, and settable to move in the stream. */
  position: number;
  readonly #block = new Uint32Array(4);
  readonly #normals = new Float32Array(4);
  #blockIndex = -1;

  /** A stream over `key` whose next draw is number `position` (default 0). */
  constructor(key: Key, position = 0) {
    checkRange(0, position);
    this.key = key;
    this.position = position;
  }

  /** The next float64 uniform in [low, high), default [0, 1), with 53 random bits. */
  uniform(low = 0, high = 1): number {
    const half = this.#advance();
    return low + (high - low) * fraction53(this.#block[half] ?? 0, this.#block[half + 1] ?? 0);
  }

  /**
   * The next integer uniform in [0, bound), as unbiased as {@link randomInts}.
   * @throws RangeError if `bound` is not an integer from 1 to 2^32.
   */
  int(bound: number): number {
    checkBound(bound);
    return Math.floor(this.uniform() * bound);
  }

  /** The next normal float64 of the given mean and standard deviation (default 0 and 1), rounded to float32 before scaling. */
  normal(mean = 0, deviation = 1): number {
    const half = this.#advance();
    boxMuller(this.#block, this.#normals, 4);
    return mean + deviation * (this.#normals[half] ?? 0);
  }

  /**
   * One of `items`, each as likely as another.
   * @throws RangeError if `items` is empty.
   */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError('pick: the list is empty; there is nothing to pick from');
    // The index is in range, so what is there is a T, undefined only if T allows it.
    return items[this.int(items.length)] as T;
  }

  /** Puts `items` in uniformly random order in place (Fisher-Yates, `items.length - 1` draws) and returns it. */
  shuffle<T>(items: T[]): T[] {
    for (let last = items.length - 1; last > 0; last--) {
      const chosen = this.int(last + 1);
      const moved = items[last] as T;
      items[last] = items[chosen] as T;
      items[chosen] = moved;
    }
    return items;
  }

  /** Takes one draw: makes its block current and returns the place of its first word in the block, 0 or 2. */
  #advance(): number {
    const block = Math.floor(this.position / 2);
    if (block !== this.#blockIndex) {
      drawBlocks(this.key, block, this.#block, 1);
      this.#blockIndex = block;
    }
    const half = this.position % 2 === 0 ? 0 : 2;
    this.position++;
    return half;
  }
}

function childKey(key: Key, c0: number, c1: number, c2: number, c3: number): Key {
  const [k0, k1] = philox4x32([c0, c1, c2, c3], key);
  return { k0, k1 };
}

/** Chains one block over each four code units; the length in each counter makes the encoding injective. */
function foldName(key: Key, name: string): Key {
  const unit = (i: number) => (i < name.length ? name.charCodeAt(i) : 0);
  let child = key;
  let i = 0;
  do {
    const c0 = unit(i) | (unit(i + 1) << 16);
    const c1 = unit(i + 2) | (unit(i + 3) << 16);
    child = childKey(child, c0, c1, name.length, foldNameDomain);
    i += 4;
  } while (i < name.length);
  return child;
}

function checkBound(bound: number): void {
  if (!Number.isInteger(bound) || bound < 1 || bound > two32) {
    throw new RangeError(`bound: ${bound} is not an integer from 1 to 2^32`);
  }
}

function checkRange(count: number, offset: number): void {
  if (!Number.isInteger(count) || count < 0 || count >= two32) {
    throw new RangeError(`count: ${count} is not an integer from 0 to 2^32 - 1`);
  }
  if (!Number.isInteger(offset) || offset < 0 || !Number.isSafeInteger(2 * (offset + count))) {
    throw new RangeError(`offset: ${offset} is not an integer from 0 to 2^52`);
  }
}

/** 53 random bits as a float64 in [0, 1). Times an integer up to 2^32 it stays below that integer after rounding. */
function fraction53(w0: number, w1: number): number {
  return ((w0 >>> 5) * 67108864 + (w1 >>> 6)) * 2 ** -53;
}

/** Calls `visit(i, f)` for draws `offset + i`, `i` in [0, count), where draw `d` is the 53-bit fraction of words `2d` and `2d + 1`. */
function forEachFraction(
  key: Key,
  offset: number,
  count: number,
  visit: (i: number, fraction: number) => void,
): void {
  const { words } = chunk();
  forEachChunk(key, 2 * offset, 2 * count, (done, skip, length) => {
    for (let at = skip; at < skip + length; at += 2) {
      visit((done + at - skip) / 2, fraction53(words[at] ?? 0, words[at + 1] ?? 0));
    }
  });
}

/** Turns the first `count` words of a chunk (a multiple of 4) into as many floats. */
type FloatConversion = (chunk: Chunk, count: number) => void;

function uniformFloats({ words, values }: Chunk, count: number): void {
  for (let i = 0; i < count; i++) values[i] = ((words[i] ?? 0) >>> 8) * 2 ** -24;
}

function drawFloats(key: Key, count: number, options: DrawOptions, convert: FloatConversion): Float32Array {
  const { offset = 0 } = options;
  checkRange(count, offset);
  const out = new Float32Array(count);
  const made = chunk();
  forEachChunk(key, offset, count, (done, skip, length) => {
    convert(made, 4 * Math.ceil((skip + length) / 4));
    out.set(made.values.subarray(skip, skip + length), done);
  });
  return out;
}

function chunk(): Chunk {
  openChunk ??= vectorChunk() ?? scalarChunk();
  return openChunk;
}

function scalarChunk(): Chunk {
  const [words, values] = [new Uint32Array(wordsPerChunk), new Float32Array(wordsPerChunk)];
  return {
    words,
    values,
    draw: (key, first, count) => drawBlocks(key, first, words, count),
    boxMuller: (count) => boxMuller(words, values, count),
  };
}

/** Undefined where the engine has no vectors. */
function vectorChunk(): Chunk | undefined {
  const vectors = openVectorDraws();
  if (vectors === undefined) return undefined;
  const { words, values } = vectors;
  return {
    words,
    values,
    draw: ({ k0, k1 }, first, count) => {
      const [low, high] = [first % two32, Math.floor(first / two32)];
      if (low + count <= two32) vectors.philox(low, high, 0, drawDomain, k0, k1, count);
      else drawBlocks({ k0, k1 }, first, words, count);
    },
    boxMuller: (count) => vectors.boxMuller(count),
  };
}

/**
 * Makes words `offset` to `offset + count` of the stream, a chunk at a time: whole blocks, of which `length` words from
 * `skip` on are wanted after the `done` before them.
 */
function forEachChunk(
  key: Key,
  offset: number,
  count: number,
  visit: (done: number, skip: number, length: number) => void,
): void {
  const { draw } = chunk();
  for (let done = 0; done < count; ) {
    const skip = (offset + done) % 4;
    const length = Math.min(wordsPerChunk - skip, count - done);
    draw(key, (offset + done - skip) / 4, Math.ceil((skip + length) / 4));
    visit(done, skip, length);
    done += length;
  }
}

/** Words of blocks `first` to `first + count` of the key's draw stream. */
function drawBlocks(key: Key, first: number, out: Uint32Array, count: number): void {
  const low = first % two32;
  const high = Math.floor(first / two32);
  const here = Math.min(count, two32 - low);
  philoxBlocks(low, high, 0, drawDomain, key, out, here);
  if (here < count) philoxBlocks(0, high + 1, 0, drawDomain, key, out.subarray(4 * here), count - here);
}

/** Philox of `count` counters, the first word counting up from `c0` (without carry), four words each into `out`. */
function philoxBlocks(
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  key: Key,
  out: Uint32Array,
  count: number,
): void {
  for (let block = 0; block < count; block++) {
    let x0 = (c0 + block) | 0;
    let x1 = c1 | 0;
    let x2 = c2 | 0;
    let x3 = c3 | 0;
    let k0 = key.k0 | 0;
    let k1 = key.k1 | 0;
    for (let round = 0; round < 10; round++) {
      // High words of the 64-bit products by 16-bit halves: no sum below leaves 32 bits. MultiplierA = 0xd2511f53.
      const aLow = x0 & 0xffff;
      const aHigh = x0 >>> 16;
      const aMiddle = Math.imul(aHigh, 0x1f53) + (Math.imul(aLow, 0x1f53) >>> 16);
      const aCross = (Math.imul(aLow, 0xd251) >>> 0) + (aMiddle & 0xffff);
      const highA = (Math.imul(aHigh, 0xd251) + (aMiddle >>> 16) + (aCross >>> 16)) | 0;
      // MultiplierB = 0xcd9e8d57.
      const bLow = x2 & 0xffff;
      const bHigh = x2 >>> 16;
      const bMiddle = (Math.imul(bHigh, 0x8d57) >>> 0) + (Math.imul(bLow, 0x8d57) >>> 16);
      const bCross = (Math.imul(bLow, 0xcd9e) >>> 0) + (bMiddle & 0xffff);
      const highB = (Math.imul(bHigh, 0xcd9e) + (bMiddle >>> 16) + (bCross >>> 16)) | 0;
      const lowA = Math.imul(x0, 0xd2511f53);
      const lowB = Math.imul(x2, 0xcd9e8d57);
      x0 = highB ^ x1 ^ k0;
      x1 = lowB;
      x2 = highA ^ x3 ^ k1;
      x3 = lowA;
      k0 = (k0 + 0x9e3779b9) | 0;
      k1 = (k1 + 0xbb67ae85) | 0;
    }
    const at = 4 * block;
    out[at] = x0;
    out[at + 1] = x1;
    out[at + 2] = x2;
    out[at + 3] = x3;
  }
}
