import { bytesPerElement } from '../../../tensor/dtype.ts';
import { at, elementCount, type Shape } from '../../../tensor/shape.ts';
import type { NodeOf } from '../../../tensor/tensor.ts';
import type { Device } from '../device.ts';
import { ownStorage, type Storage } from '../storage.ts';
import { resultsOfTail, type Tail } from '../tails.ts';
import { type Gemm, type GemmEpilogue, type GemmLibrary, gemmType } from './gemm.ts';
import type { LibraryCall } from './library-call.ts';

/** Products of a whole matmul node: the same batched product, from several positions of its operands. */
export interface MatmulPlan {
  readonly gemm: Gemm;
  /** Elements before each product's operands and result. */
  readonly starts: readonly (readonly [a: number, b: number, y: number])[];
}

/** A matmul node through cuBLASLt, with its tail if that is taken too. */
export function lowerMatmul(
  device: Device,
  library: GemmLibrary,
  node: NodeOf<'matmul'>,
  storage: Storage,
  tail?: Tail,
): LibraryCall {
  if (tail !== undefined) return lowerTail(library, tail, storage);
  const { shape } = at(node.results, 0);
  const plan = planMatmul(node, storage);
  const bytes = BigInt(bytesPerElement(plan.gemm.dtype));
  const resultBytes = bytesPerElement(plan.gemm.result);
  if (elementCount(shape) === 0) return { scratch: [], kernels: [], bind: () => [] };
  if (plan.gemm.k === 0) {
    const clear = (y: bigint) => () => device.clear(y, resultBytes * elementCount(shape));
    return { scratch: [], kernels: [], bind: ({ outputs }) => [clear(at(outputs, 0))] };
  }
  const product = library.plan(plan.gemm);
  return {
    scratch: [],
    kernels: [],
    bind: ({ inputs, outputs }) =>
      plan.starts.map(([a, b, y]) =>
        product.bind(
          at(inputs, 0) + BigInt(a) * bytes,
          at(inputs, 1) + BigInt(b) * bytes,
          at(outputs, 0) + BigInt(y * resultBytes),
        ),
      ),
  };
}

function lowerTail(library: GemmLibrary, tail: Tail, storage: Storage): LibraryCall {
  const gemm = gemmOfTail(tail, storage);
  if (gemm === undefined) throw new Error('a product whose tail cuBLASLt does not compute');
  const product = library.plan(gemm);
  return {
    scratch: [],
    kernels: [],
    bind: ({ inputs: [a = 0n, b = 0n, bias = 0n], outputs: [y = 0n, sum = 0n] }) => [
      product.bind(a, b, y, { bias, sum }),
    ],
  };
}

/** The product that computes a tail too; undefined where it has no form for it. */
export function gemmOfTail(tail: Tail, storage: Storage): Gemm | undefined {
  const { product, gelu, keepsSum } = tail;
  const written = at(resultsOfTail(tail), 0);
  const { gemm, starts } = planMatmul(product, storage, written);
  const isOne = starts.length === 1 && gemm.batch === 1 && gemm.m * gemm.n * gemm.k > 0;
  // The sum beside its gelu has rows of a multiple of 8 elements.
  if (!isOne || (keepsSum && gemm.n % 8 !== 0)) return undefined;
  return { ...gemm, epilogue: epilogueOf(gelu !== undefined, keepsSum) };
}

function epilogueOf(hasGelu: boolean, keepsSum: boolean): GemmEpilogue {
  if (!hasGelu) return 'bias';
  return keepsSum ? 'biasGeluKeepingSum' : 'biasGelu';
}

/**
 * Finds the fewest batched products that make a matmul with broadcast leading axes. A matrix shared by a whole batch
 * is one product over all rows; otherwise the last axes along which both operands advance evenly are one batch.
 * @param y what is written: the matmul's result, or what a tail makes of it.
 */
export function planMatmul(
  node: NodeOf<'matmul'>,
  storage: Storage = ownStorage,
  y = at(node.results, 0),
): MatmulPlan {
  const { transposeA, transposeB } = node.attributes;
  const [a, b] = node.operands;
  const [m, n] = [at(y.shape, y.shape.length - 2), at(y.shape, y.shape.length - 1)];
  const k = at(a.shape, a.shape.length - (transposeA ? 2 : 1));
  const [batchA, batchB, batchY] = [a.shape.slice(0, -2), b.shape.slice(0, -2), y.shape.slice(0, -2)];
  const common = { n, k, transposeA, transposeB, dtype: gemmType(storage(a)), result: gemmType(storage(y)) };
  if (!transposeA && elementCount(batchB) === 1 && elementCount(batchA) === elementCount(batchY)) {
    const gemm = { ...common, m: m * elementCount(batchY), batch: 1, strideA: 0, strideB: 0, alignment: 16 };
    return { gemm, starts: [[0, 0, 0]] };
  }
  const stepsA = broadcastSteps(batchA, batchY, m * k);
  const stepsB = broadcastSteps(batchB, batchY, k * n);
  let axis = batchY.length;
  let [batch, strideA, strideB] = [1, 0, 0];
  while (axis > 0) {
    const [size, stepA, stepB] = [at(batchY, axis - 1), at(stepsA, axis - 1), at(stepsB, axis - 1)];
    if (size !== 1) {
      if (batch > 1 && (stepA !== strideA * batch || stepB !== strideB * batch)) break;
      if (batch === 1) [strideA, strideB] = [stepA, stepB];
      batch *= size;
    }
    axis--;
  }
  const starts = positions(batchY.slice(0, axis)).map((index, i): [number, number, number] => [
    index.reduce((sum, value, j) => sum + value * at(stepsA, j), 0),
    index.reduce((sum, value, j) => sum + value * at(stepsB, j), 0),
    i * batch * m * n,
  ]);
  const bytes = Math.min(bytesPerElement(common.dtype), bytesPerElement(common.result));
  const alignment = starts.flat().reduce((least, start) => Math.min(least, alignmentOf(start * bytes)), 16);
  return { gemm: { ...common, m, batch, strideA, strideB, alignment }, starts };
}

/** Elements that an operand advances along each batch axis of the result: 0 where it is repeated. */
function broadcastSteps(own: Shape, batch: Shape, matrix: number): number[] {
  const padded = [...new Array<number>(batch.length - own.length).fill(1), ...own];
  return padded.map((size, axis) => (size === 1 ? 0 : matrix * elementCount(padded.slice(axis + 1))));
}

/** Every index of a shape, in row-major order. */
function positions(shape: Shape): number[][] {
  return shape.reduce<number[][]>(
    (found, size) => found.flatMap((index) => Array.from({ length: size }, (_, i) => [...index, i])),
    [[]],
  );
}

/** Largest power of two up to 16 that divides an address. */
function alignmentOf(address: number): number {
  return [16, 8, 4, 2].find((power) => address % power === 0) ?? 1;
}
