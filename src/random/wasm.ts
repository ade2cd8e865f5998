/**
 * WebAssembly written as expressions: as much of its binary format (the core specification, chapter 5) as vector
 * arithmetic needs. Code is the bytes of instructions; an expression leaves one value on the stack, a statement none.
 *
 * Nothing is checked here: the engine refuses code that is not valid when the module is compiled.
 */

/** Bytes of instructions. */
export type Code = readonly number[];

/** Types of values. */
const types = { i32: 0x7f, v128: 0x7b } as const;

/** Index of a parameter or local variable of a function. */
export type Local = number;

/** A function that a module exports. It takes integers and gives nothing. */
export interface WasmFunction {
  readonly name: string;
  /** Number of its parameters, all i32: locals 0 and on. */
  readonly parameters: number;
  /** Numbers of further locals, which come after the parameters in this order. */
  readonly locals: { readonly i32: number; readonly v128: number };
  readonly body: Code;
}

/** The value of a local. */
export const get = (local: Local): Code => [0x20, ...unsigned(local)];
/** Sets a local. */
export const set = (local: Local, value: Code): Code => [...value, 0x21, ...unsigned(local)];

const binary =
  (...opcode: Code) =>
  (a: Code, b: Code): Code => [...a, ...b, ...opcode];

/** Integers of 32 bits. */
export const i32 = {
  const: (value: number): Code => [0x41, ...signed(value)],
  add: binary(0x6a),
  lessThan: binary(0x49),
};

const vector = (opcode: number): Code => [0xfd, ...unsigned(opcode)];
const unaryVector =
  (opcode: number) =>
  (a: Code): Code => [...a, ...vector(opcode)];
const binaryVector = (opcode: number) => binary(...vector(opcode));
const shift =
  (opcode: number) =>
  (a: Code, bits: number): Code => [...a, ...i32.const(bits), ...vector(opcode)];

/** Vectors of 128 bits as such. */
export const v128 = {
  load: (address: Code): Code => [...address, ...vector(0x00), 4, 0],
  /** 64 bits at an address, in both halves. */
  loadTwice: (address: number): Code => [...i32.const(0), ...vector(0x0a), 3, ...unsigned(address)],
  /** @param offset in bytes from `address`. */
  store: (address: Code, value: Code, offset = 0): Code => [
    ...address,
    ...value,
    ...vector(0x0b),
    4,
    ...unsigned(offset),
  ],
  and: binaryVector(0x4e),
  or: binaryVector(0x50),
  xor: binaryVector(0x51),
  /** Bits of `a` where the mask has ones, of `b` where it has zeros. */
  select: (mask: Code, a: Code, b: Code): Code => [...a, ...b, ...mask, ...vector(0x52)],
};

/** Four integers of 32 bits. */
export const i32x4 = {
  const: (...values: readonly [number, number, number, number]): Code => [
    ...vector(0x0c),
    ...new Uint8Array(Uint32Array.from(values).buffer),
  ],
  splat: unaryVector(0x11),
  add: binaryVector(0xae),
  shiftLeft: shift(0xab),
  /** Copies of the sign come in. */
  shiftRight: shift(0xac),
  /** Products of the lower two lanes, unsigned, of 64 bits each. */
  multiplyLow: binaryVector(0xde),
  /** Products of the upper two lanes. */
  multiplyHigh: binaryVector(0xdf),
  /** Four of the eight lanes of `a` and `b`. */
  shuffle: (a: Code, b: Code, lanes: readonly [number, number, number, number]): Code => [
    ...a,
    ...b,
    ...vector(0x0d),
    ...lanes.flatMap((lane) => [4 * lane, 4 * lane + 1, 4 * lane + 2, 4 * lane + 3]),
  ],
};

/** Two integers of 64 bits. */
export const i64x2 = {
  subtract: binaryVector(0xd1),
  /** Zeros come in. */
  shiftRight: shift(0xcd),
};

/** Two float64. */
export const f64x2 = {
  add: binaryVector(0xf0),
  subtract: binaryVector(0xf1),
  multiply: binaryVector(0xf2),
  divide: binaryVector(0xf3),
  squareRoot: unaryVector(0xef),
  negate: unaryVector(0xed),
  /** Ones in all bits of a lane where it is true. */
  greater: binaryVector(0x4a),
  /** Of the lower two lanes, as signed integers of 32 bits. */
  fromSigned: unaryVector(0xfe),
  /** Of the lower two lanes, as unsigned integers of 32 bits. */
  fromUnsigned: unaryVector(0xff),
  /** Rounded to float32, in the lower two lanes. */
  toFloat32: unaryVector(0x5e),
};

/** Repeats a body as long as `local`, which the body moves on, is less than `end`, unsigned; at least once. */
export function repeat(local: Local, end: Code, body: Code): Code {
  return [0x03, 0x40, ...body, ...i32.lessThan(get(local), end), 0x0d, 0, 0x0b];
}

/**
 * Constants of 64 bits that code reads from memory, from address `start` on: engines make a constant vector from
 * immediate numbers each time anew, which takes longer than reading it.
 */
export class ConstantPool {
  readonly start: number;
  readonly #bits: bigint[] = [];

  constructor(start: number) {
    this.start = start;
  }

  /** A float64, in both lanes. */
  readonly number = (value: number): Code =>
    this.bits(new BigUint64Array(Float64Array.of(value).buffer)[0] ?? 0n);

  /** 64 bits, in both lanes. */
  readonly bits = (value: bigint): Code => {
    if (!this.#bits.includes(value)) this.#bits.push(value);
    return v128.loadTwice(this.start + 8 * this.#bits.indexOf(value));
  };

  /** What is to be in memory before the code runs. */
  get content(): Code {
    return [...new Uint8Array(BigUint64Array.from(this.#bits).buffer)];
  }
}

/**
 * A module's bytes. It exports its functions, and as `memory` what they load from and store to.
 * @param pages of memory, 64 KiB each.
 */
export function wasmModule(
  pages: number,
  functions: readonly WasmFunction[],
  constants: ConstantPool,
): Uint8Array<ArrayBuffer> {
  const section = (id: number, content: Code): Code => [id, ...unsigned(content.length), ...content];
  const list = (items: readonly Code[]): Code => [...unsigned(items.length), ...items.flat()];
  const nameOf = (name: string): Code => list([...new TextEncoder().encode(name)].map((byte) => [byte]));
  const typeOf = ({ parameters }: WasmFunction): Code => [
    0x60,
    ...list(Array.from({ length: parameters }, () => [types.i32])),
    ...list([]),
  ];
  const codeOf = ({ locals, body }: WasmFunction): Code => {
    const code = [
      ...list([
        [...unsigned(locals.i32), types.i32],
        [...unsigned(locals.v128), types.v128],
      ]),
      ...body,
      0x0b,
    ];
    return [...unsigned(code.length), ...code];
  };
  const magicAndVersion = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
  return Uint8Array.from([
    ...magicAndVersion,
    ...section(1, list(functions.map(typeOf))),
    ...section(3, list(functions.map((_, i) => unsigned(i)))),
    ...section(5, list([[0, ...unsigned(pages)]])),
    ...section(
      7,
      list([
        [...nameOf('memory'), 2, 0],
        ...functions.map(({ name }, i) => [...nameOf(name), 0, ...unsigned(i)]),
      ]),
    ),
    ...section(10, list(functions.map(codeOf))),
    ...section(
      11,
      list([[0, ...i32.const(constants.start), 0x0b, ...list(constants.content.map((byte) => [byte]))]]),
    ),
  ]);
}

/** LEB128 of an integer that is not negative. */
function unsigned(value: number): Code {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}

/** LEB128 of a signed integer of 32 bits. */
function signed(value: number): Code {
  const rest = value >> 7;
  const isLast = rest === (value & 0x40 ? -1 : 0);
  return isLast ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...signed(rest)];
}
