/**
 * Philox and the Box-Muller transform as WebAssembly, four words at a time: the arithmetic of `philox.ts` and
 * `normal.ts`, operation by operation, so that the bits are the same. WebAssembly has no operation that rounds
 * differently from machine to machine among those used here.
 */

import { angleUnit, cosineTerms, logarithmTerms, sineTerms } from './normal.ts';
import {
  type Code,
  ConstantPool,
  f64x2,
  get,
  i32,
  i32x4,
  i64x2,
  repeat,
  set,
  v128,
  wasmModule,
} from './wasm.ts';

/** Makes words, and normals of them, in memory of its own. */
export interface VectorDraws {
  /** Where words are made. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** Where normals are made. */
  readonly values: Float32Array<ArrayBuffer>;
  /**
   * Philox of counters, the first word counting up from `c0` without carry, into {@link words}.
   * @param count of blocks; up to three more are made.
   */
  philox(c0: number, c1: number, c2: number, c3: number, k0: number, k1: number, count: number): void;
  /**
   * Turns {@link words} into {@link values}.
   * @param count of words; up to three more are turned.
   */
  boxMuller(count: number): void;
}

const pageBytes = 2 ** 16;
/** Words lie in the first quarter of the memory, values in the second, constants behind them. */
const [wordsBytes, valuesAt, constantsAt] = [pageBytes / 4, pageBytes / 4, pageBytes / 2];

/**
 * Compiles the code, in about a millisecond.
 * @returns undefined where the engine has no WebAssembly with vectors, or may not compile any.
 */
export function openVectorDraws(): VectorDraws | undefined {
  try {
    const constants = new ConstantPool(constantsAt);
    const functions = [philoxFunction(), boxMullerFunction(constants)];
    const module = new WebAssembly.Module(wasmModule(1, functions, constants));
    const exports = new WebAssembly.Instance(module).exports as {
      readonly memory: WebAssembly.Memory;
      readonly philox: VectorDraws['philox'];
      readonly boxMuller: VectorDraws['boxMuller'];
    };
    const buffer = exports.memory.buffer as ArrayBuffer;
    return {
      words: new Uint32Array(buffer, 0, wordsBytes / 4),
      values: new Float32Array(buffer, valuesAt, wordsBytes / 4),
      philox: exports.philox,
      boxMuller: exports.boxMuller,
    };
  } catch {
    return undefined;
  }
}

/** Four blocks at a time: vector i holds word i of each. */
function philoxFunction() {
  const [c0, c1, c2, c3, k0, k1, count, block, address] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
  const [first, x0, x1, x2, x3, productA, productB, upperA, upperB, key0, key1] = [
    9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
  ];
  const multiplierA = i32x4.splat(i32.const(0xd2511f53 | 0));
  const multiplierB = i32x4.splat(i32.const(0xcd9e8d57 | 0));
  const low = (a: Code, b: Code) => i32x4.shuffle(a, b, [0, 2, 4, 6]);
  const high = (a: Code, b: Code) => i32x4.shuffle(a, b, [1, 3, 5, 7]);
  const round = [
    ...set(productA, i32x4.multiplyLow(get(x0), multiplierA)),
    ...set(upperA, i32x4.multiplyHigh(get(x0), multiplierA)),
    ...set(productB, i32x4.multiplyLow(get(x2), multiplierB)),
    ...set(upperB, i32x4.multiplyHigh(get(x2), multiplierB)),
    ...set(x0, v128.xor(v128.xor(high(get(productB), get(upperB)), get(x1)), get(key0))),
    ...set(x1, low(get(productB), get(upperB))),
    ...set(x2, v128.xor(v128.xor(high(get(productA), get(upperA)), get(x3)), get(key1))),
    ...set(x3, low(get(productA), get(upperA))),
    ...set(key0, i32x4.add(get(key0), i32x4.splat(i32.const(0x9e3779b9 | 0)))),
    ...set(key1, i32x4.add(get(key1), i32x4.splat(i32.const(0xbb67ae85 | 0)))),
  ];
  // From four words of each kind to four blocks of four words.
  const pairs = (a: Code, b: Code, from: 0 | 2) => i32x4.shuffle(a, b, [from, from + 4, from + 1, from + 5]);
  const store = ([0, 2] as const).flatMap((from) => [
    ...set(productA, pairs(get(x0), get(x1), from)),
    ...set(productB, pairs(get(x2), get(x3), from)),
    ...v128.store(get(address), i32x4.shuffle(get(productA), get(productB), [0, 1, 4, 5]), 16 * from),
    ...v128.store(get(address), i32x4.shuffle(get(productA), get(productB), [2, 3, 6, 7]), 16 * from + 16),
  ]);
  const body = repeat(block, get(count), [
    ...set(x0, i32x4.add(get(first), i32x4.splat(get(block)))),
    ...set(x1, i32x4.splat(get(c1))),
    ...set(x2, i32x4.splat(get(c2))),
    ...set(x3, i32x4.splat(get(c3))),
    ...set(key0, i32x4.splat(get(k0))),
    ...set(key1, i32x4.splat(get(k1))),
    ...Array.from({ length: 10 }, () => round).flat(),
    ...store,
    ...set(address, i32.add(get(address), i32.const(64))),
    ...set(block, i32.add(get(block), i32.const(4))),
  ]);
  return {
    name: 'philox',
    parameters: 7,
    locals: { i32: 2, v128: 11 },
    body: [...set(first, i32x4.add(i32x4.splat(get(c0)), i32x4.const(0, 1, 2, 3))), ...body],
  };
}

/** Two pairs of words at a time. The comments are in `normal.ts`. */
function boxMullerFunction({ number, bits }: ConstantPool) {
  const [count, address, word] = [0, 1, 2];
  const [pair, m, isBig, exponent, s, z, radius, turn, mask, x, y, sine, cosine] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
  ];
  const { add, subtract, multiply, divide, squareRoot, negate } = f64x2;
  /** terms[0] + v (terms[1] + v (...)). */
  const polynomial = (terms: readonly number[], v: number): Code => {
    const [last = 0, ...before] = terms.toReversed();
    return before.reduce((sum: Code, term) => add(number(term), multiply(get(v), sum)), number(last));
  };
  // 2^52 + e as a float64 has the integer e as its lowest bits.
  const floatOf = (integer: Code) =>
    subtract(v128.or(integer, bits(0x4330_0000_0000_0000n)), number(2 ** 52 + 1023 + 32));
  const radiusOf = [
    ...set(m, add(f64x2.fromUnsigned(i32x4.shuffle(get(pair), get(pair), [0, 2, 0, 2])), number(0.5))),
    ...set(exponent, i64x2.shiftRight(get(m), 52)),
    ...set(m, v128.or(v128.and(get(m), bits(0x000f_ffff_ffff_ffffn)), bits(0x3ff0_0000_0000_0000n))),
    ...set(isBig, f64x2.greater(get(m), number(Math.SQRT2))),
    ...set(m, v128.select(get(isBig), multiply(get(m), number(0.5)), get(m))),
    ...set(exponent, i64x2.subtract(get(exponent), get(isBig))),
    ...set(s, divide(subtract(get(m), number(1)), add(get(m), number(1)))),
    ...set(z, multiply(get(s), get(s))),
    ...set(
      radius,
      squareRoot(
        multiply(
          number(-2),
          add(
            multiply(floatOf(get(exponent)), number(Math.LN2)),
            multiply(get(s), polynomial(logarithmTerms, z)),
          ),
        ),
      ),
    ),
  ];
  const angleOf = [
    ...set(pair, i32x4.shuffle(get(pair), get(pair), [1, 3, 1, 3])),
    ...set(
      turn,
      i32x4.add(i32x4.shuffle(get(pair), get(pair), [0, 0, 1, 1]), i32x4.splat(i32.const(0x2000_0000))),
    ),
    ...set(mask, i32x4.shiftRight(i32x4.shiftLeft(get(turn), 1), 31)),
    ...set(
      x,
      multiply(f64x2.fromSigned(i32x4.shiftRight(i32x4.shiftLeft(get(pair), 2), 2)), number(angleUnit)),
    ),
    ...set(y, multiply(get(x), get(x))),
    ...set(sine, add(get(x), multiply(multiply(get(x), get(y)), polynomial(sineTerms, y)))),
    ...set(
      cosine,
      add(
        subtract(number(1), multiply(number(0.5), get(y))),
        multiply(multiply(get(y), get(y)), polynomial(cosineTerms, y)),
      ),
    ),
  ];
  const product = (value: Code) => f64x2.toFloat32(multiply(get(radius), value));
  const values = [
    ...set(radius, v128.xor(get(radius), v128.and(get(turn), bits(0x8000_0000_0000_0000n)))),
    ...v128.store(
      get(address),
      i32x4.shuffle(
        product(v128.select(get(mask), negate(get(sine)), get(cosine))),
        product(v128.select(get(mask), get(cosine), get(sine))),
        [0, 4, 1, 5],
      ),
      valuesAt,
    ),
  ];
  return {
    name: 'boxMuller',
    parameters: 1,
    locals: { i32: 2, v128: 13 },
    body: repeat(word, get(count), [
      ...set(pair, v128.load(get(address))),
      ...radiusOf,
      ...angleOf,
      ...values,
      ...set(address, i32.add(get(address), i32.const(16))),
      ...set(word, i32.add(get(word), i32.const(4))),
    ]),
  };
}
