/**
 * The header of a safetensors file: JSON text that names each tensor's dtype, shape and byte range.
 *
 * Format: https://huggingface.co/docs/safetensors. A file is the header's length (u64, little-endian), the header
 * (padded with spaces to 8 bytes), and the tensors' bytes without gaps. This module is pure: bytes in, bytes out.
 */

import { UserError } from '../errors.ts';
import { bytesPerElement, type DType } from '../tensor/dtype.ts';
import { elementCount, formatShape, type Shape } from '../tensor/shape.ts';
import { JsonCursor, shorten } from './json-cursor.ts';

/** Longest header read or written, in bytes: the limit of the Python library. */
export const maxHeaderBytes = 100_000_000;

/** Bits that an element of each dtype of the format takes. */
const storedBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** A dtype as the format names it. */
export type StoredDType = keyof typeof storedBits;

/** Names of our dtypes in the format, in the order in which the Python library lays tensors out: by falling alignment. */
const storedNames: { readonly [D in DType]: StoredDType } = {
  f32: 'F32',
  i32: 'I32',
  bf16: 'BF16',
  f16: 'F16',
  f8e4m3: 'F8_E4M3',
  f8e5m2: 'F8_E5M2',
  bool: 'BOOL',
};
const layoutOrder = Object.keys(storedNames);
const dtypeOfStored = new Map<string, DType>(
  Object.entries(storedNames).map(([dtype, stored]) => [stored, dtype as DType]),
);

const metadataKey = '__metadata__';
const maxRank = 64;

/** A tensor as a header describes it. */
export interface StoredTensor {
  /** Its unique name. */
  readonly name: string;
  /** Its dtype, or `undefined` if it is one that Zoetrope has no tensors of (F64, I64, ...): only its bytes can be read. */
  readonly dtype: DType | undefined;
  /** Its dtype as the file names it. */
  readonly storedDtype: StoredDType;
  /** Sizes of its axes, outermost first. */
  readonly shape: Shape;
  /** Where its bytes start, counted from the end of the header. */
  readonly begin: number;
  /** How many bytes it has. */
  readonly byteLength: number;
}

/** What a header says. */
export interface SafetensorsHeader {
  /** Tensors by name, in order of their place in the file. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Free text by key. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** What a header must know of a tensor to be written. */
export interface TensorDeclaration {
  /** Its name, unique in the file. */
  readonly name: string;
  /** Its dtype. */
  readonly dtype: DType;
  /** Sizes of its axes, outermost first. */
  readonly shape: Shape;
}

/**
 * Reads the header text `bytes` of the file called `source`, after which `dataLength` bytes follow.
 * @throws UserError naming the file, and the tensor if it is one tensor's fault, when the text is not such a header,
 * or the tensors do not fill the data exactly: each once, no gap, no overlap, nothing left over.
 */
export function parseHeader(bytes: Uint8Array, dataLength: number, source: string): SafetensorsHeader {
  const fail = (problem: string): never => {
    throw new UserError(`${source}: the header is damaged: ${problem}; this is no complete safetensors file`);
  };
  const cursor = new JsonCursor(decodeUtf8(bytes, fail), fail);
  const found: StoredTensor[] = [];
  const names = new Set<string>();
  let metadata = new Map<string, string>();
  cursor.object((name) => {
    if (names.has(name)) fail(`${nameForMessage(name)} is there twice`);
    names.add(name);
    if (name === metadataKey) metadata = readMetadata(cursor, fail);
    else found.push(readTensor(cursor, name, (problem) => fail(`tensor ${nameForMessage(name)} ${problem}`)));
  });
  cursor.end();
  found.sort((a, b) => a.begin - b.begin || a.byteLength - b.byteLength);
  checkLayout(found, dataLength, fail);
  return { tensors: new Map(found.map((tensor) => [tensor.name, tensor])), metadata };
}

/** The header of a file to be written, and its tensors in the order of their bytes. */
export interface HeaderPlan<T extends TensorDeclaration> {
  /** Length prefix and text, padded: all that comes before the first tensor. */
  readonly bytes: Uint8Array;
  /** The declarations given, in file order. */
  readonly order: readonly T[];
}

/**
 * Lays out a file as the Python library does (dtypes by falling alignment, then names by code point), with the metadata
 * sorted by key: equal contents give equal bytes.
 * @throws UserError if two tensors share a name, a name, key or value is not Unicode text, a shape is no list of
 * non-negative integers, or the header would be longer than {@link maxHeaderBytes}.
 */
export function planHeader<T extends TensorDeclaration>(
  tensors: readonly T[],
  metadata: ReadonlyMap<string, string>,
  target: string,
): HeaderPlan<T> {
  const order = [...tensors].sort(
    (a, b) =>
      layoutOrder.indexOf(a.dtype) - layoutOrder.indexOf(b.dtype) || compareCodePoints(a.name, b.name),
  );
  const members: string[] = [];
  if (metadata.size > 0) members.push(`"${metadataKey}":${formatMetadata(metadata, target)}`);
  const names = new Set<string>([metadataKey]);
  let begin = 0;
  for (const tensor of order) {
    checkDeclaration(tensor, names, target);
    names.add(tensor.name);
    const end = begin + byteLengthOf(tensor);
    members.push(
      `${JSON.stringify(tensor.name)}:{"dtype":"${storedNames[tensor.dtype]}","shape":[${tensor.shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    );
    begin = end;
  }
  return { bytes: withLength(`{${members.join(',')}}`, target), order };
}

/** Bytes that a declared tensor takes. */
export function byteLengthOf({ dtype, shape }: TensorDeclaration): number {
  return elementCount(shape) * bytesPerElement(dtype);
}

/** A tensor's name as error messages show it: quoted, control characters escaped, of bounded length. */
export function nameForMessage(name: string): string {
  return JSON.stringify(shorten(name));
}

type Fail = (problem: string) => never;

function decodeUtf8(bytes: Uint8Array, fail: Fail): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return fail('it is not UTF-8 text');
  }
}

function readMetadata(cursor: JsonCursor, fail: Fail): Map<string, string> {
  const metadata = new Map<string, string>();
  cursor.object((key) => {
    if (metadata.has(key)) fail(`metadata key ${nameForMessage(key)} is there twice`);
    metadata.set(key, cursor.string());
  });
  return metadata;
}

function readTensor(cursor: JsonCursor, name: string, fail: Fail): StoredTensor {
  let stored: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  cursor.object((key) => {
    if (key === 'dtype' && stored === undefined) stored = cursor.string();
    else if (key === 'shape' && shape === undefined) shape = cursor.integers(maxRank);
    else if (key === 'data_offsets' && offsets === undefined) offsets = cursor.integers(2);
    else fail(`has a repeated or unknown field ${nameForMessage(key)}`);
  });
  const [begin, end] = offsets ?? [];
  if (stored === undefined || shape === undefined || begin === undefined || end === undefined) {
    return fail('lacks its dtype, its shape or its two data_offsets');
  }
  if (!isStoredDtype(stored)) return fail(`has the unknown dtype ${nameForMessage(stored)}`);
  if (end < begin) fail(`ends at byte ${end}, before it begins at ${begin}`);
  const expected = storedBytes(stored, shape, fail);
  if (end - begin !== expected) {
    fail(`has ${end - begin} bytes where ${stored}${shorten(formatShape(shape))} takes ${expected}`);
  }
  return {
    name,
    dtype: dtypeOfStored.get(stored),
    storedDtype: stored,
    shape,
    begin,
    byteLength: end - begin,
  };
}

function isStoredDtype(name: string): name is StoredDType {
  return Object.hasOwn(storedBits, name);
}

function storedBytes(dtype: StoredDType, shape: Shape, fail: Fail): number {
  let bits: number = storedBits[dtype];
  for (const size of shape) {
    bits *= size;
    if (!Number.isSafeInteger(bits))
      fail(`has a shape of more than 2^53 bits, ${shorten(formatShape(shape))}`);
  }
  if (bits % 8 !== 0) fail(`does not fill whole bytes with ${dtype}${shorten(formatShape(shape))}`);
  return bits / 8;
}

/** `tensors` sorted by place. */
function checkLayout(tensors: readonly StoredTensor[], dataLength: number, fail: Fail): void {
  let end = 0;
  for (const { name, begin, byteLength } of tensors) {
    const refuse = (problem: string): never => fail(`tensor ${nameForMessage(name)} ${problem}`);
    if (begin < end) refuse(`begins at byte ${begin}, inside the tensor before it`);
    if (begin > end) refuse(`begins at byte ${begin} and leaves ${begin - end} bytes before it unused`);
    end = begin + byteLength;
    if (end > dataLength) refuse(`ends at byte ${end} of the ${dataLength} bytes of data`);
  }
  if (end < dataLength) fail(`${dataLength - end} bytes follow the last tensor`);
}

function checkDeclaration({ name, shape }: TensorDeclaration, taken: Set<string>, target: string): void {
  const fail = (problem: string): never => {
    throw new UserError(`${target}: tensor ${nameForMessage(name)} ${problem}`);
  };
  if (name === metadataKey) fail('has the name that the format keeps for metadata; rename it');
  if (taken.has(name)) fail('is given twice; names must differ');
  if (!name.isWellFormed()) fail('has a name with half a surrogate pair; use Unicode text');
  if (shape.length > maxRank || !shape.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    fail(`has the shape ${shorten(formatShape(shape))}; give at most ${maxRank} non-negative integers`);
  }
}

function formatMetadata(metadata: ReadonlyMap<string, string>, target: string): string {
  const sorted = [...metadata].sort(([a], [b]) => compareCodePoints(a, b));
  const bad = sorted.find(([key, value]) => !key.isWellFormed() || !value.isWellFormed());
  if (bad !== undefined) {
    throw new UserError(
      `${target}: metadata ${nameForMessage(bad[0])} has half a surrogate pair; use Unicode text`,
    );
  }
  return `{${sorted.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`).join(',')}}`;
}

function withLength(json: string, target: string): Uint8Array {
  const text = new TextEncoder().encode(json);
  const padded = Math.ceil(text.length / 8) * 8;
  if (padded > maxHeaderBytes) {
    throw new UserError(
      `${target}: the header takes ${padded} bytes, the format allows ${maxHeaderBytes}; split the file`,
    );
  }
  const bytes = new Uint8Array(8 + padded).fill(0x20, 8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(text, 8);
  return bytes;
}

/** Order by Unicode code point, which is that of UTF-8 bytes: surrogates must sort above U+E000 to U+FFFF. */
function compareCodePoints(a: string, b: string): number {
  const rank = (code: number) => (code < 0xd800 ? code : code < 0xe000 ? code + 0x2000 : code - 0x800);
  for (let i = 0; i < a.length && i < b.length; i++) {
    const difference = rank(a.charCodeAt(i)) - rank(b.charCodeAt(i));
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}
