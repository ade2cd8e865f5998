import { at, elementCount } from '../../../tensor/shape.ts';
import { constant, type NodeOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import { computeType, ExpressionWriter, type KernelContext, resultOf, storageType } from './expression.ts';
import { namedKernel, threads } from './named-kernel.ts';

/** Largest number of blocks that share one reduction before a second pass joins their results. */
const mostParts = 256;

/**
 * A sum or maximum over axes: consecutive threads take consecutive elements, along the reduced axes if the last one is
 * among them, else along the kept ones. Where that leaves the GPU idle, the work is cut into parts that a second
 * kernel joins, always in the same order.
 */
export function reductionStages(node: NodeOf<'sum' | 'max'>, context: KernelContext): readonly Stage[] {
  const [x] = node.operands;
  const output = resultOf(node);
  const kept = x.shape.map((size, axis) => (node.attributes.axes.includes(axis) ? 1 : size));
  const reduced = x.shape.map((size, axis) => (node.attributes.axes.includes(axis) ? size : 1));
  const [outputs, length] = [elementCount(kept), elementCount(reduced)];
  const alongRows = x.rank === 0 || at(reduced, x.rank - 1) > 1 || outputs === 1;
  // Threads of a block that work on one output together.
  const lanes = alongRows ? (length >= 1024 ? threads : 32) : length >= 64 ? 8 : 1;
  const columns = threads / lanes;
  const blocks = Math.ceil(outputs / columns);
  const wanted = Math.min(mostParts, Math.ceil(528 / blocks), Math.ceil(length / (lanes * 16)));
  const parts = blocks >= 264 || wanted < 2 ? 1 : wanted;

  const writer = new ExpressionWriter(context);
  const [outer, inner] = [writer.unravel('column', kept), writer.unravel('r', reduced)];
  const index = kept.map((size, axis) => (size > 1 ? at(outer, axis) : at(inner, axis)));
  const value = writer.element(x, index);
  const type = computeType(x.dtype);
  const join = node.op === 'sum' ? 'plus' : 'larger';
  const initial = node.op === 'sum' ? '0' : type === 'float' ? '-INF' : '(-2147483647 - 1)';
  const partial = parts === 1 ? output : partialTensor(parts, outputs, output);
  const parameters = writer.inputs.map((input, i) => `const ${storageType(context.storage(input))}* x${i}`);
  const [lane, slot] = alongRows
    ? [`threadIdx.x % ${lanes}`, `threadIdx.x / ${lanes}`]
    : [`threadIdx.x / ${columns}`, `threadIdx.x % ${columns}`];
  const kernel = namedKernel(
    node.op,
    `(${[...parameters, `${storageType(context.storage(partial))}* y`].join(', ')}) {
  __shared__ ${type} shared[${threads}];
  const int lane = ${lane}, slot = ${slot};
  const ${context.indexType} column = (${context.indexType})blockIdx.x * ${columns} + slot;
  ${type} total = ${initial};
  if (column < ${outputs}) {
    for (${context.indexType} r = (${context.indexType})blockIdx.y * ${lanes} + lane; r < ${length}; r += ${lanes * parts}LL) {
      ${writer.lines.join('\n      ')}
      total = ${join}(total, ${value});
    }
  }
  shared[slot * ${lanes} + lane] = total;
  __syncthreads();
  for (int half = ${lanes / 2}; half > 0; half /= 2) {
    if (lane < half) shared[slot * ${lanes} + lane] = ${join}(shared[slot * ${lanes} + lane], shared[slot * ${lanes} + lane + half]);
    __syncthreads();
  }
  if (lane == 0 && column < ${outputs}) put(y, blockIdx.y * ${outputs}LL + column, shared[slot * ${lanes}]);
}`,
    [Math.max(1, blocks), parts, 1],
    [threads, 1, 1],
  );
  const first: Stage = { kind: 'kernel', kernel, inputs: writer.inputs, outputs: [partial] };
  if (parts === 1) return [first];
  const second = namedKernel(
    `${node.op}_parts`,
    `(const ${storageType(partial.dtype)}* x, ${storageType(context.storage(output))}* y) {
  const long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i >= ${outputs}LL) return;
  ${type} total = ${initial};
  for (int part = 0; part < ${parts}; part++) total = ${join}(total, get(x, part * ${outputs}LL + i));
  put(y, i, total);
}`,
    [Math.max(1, Math.ceil(outputs / threads)), 1, 1],
    [threads, 1, 1],
  );
  return [first, { kind: 'kernel', kernel: second, inputs: [partial], outputs: [output] }];
}

/** A tensor that names memory between two kernels; its node is never computed. */
function partialTensor(parts: number, outputs: number, { dtype }: Tensor): Tensor {
  return constant([0], [parts, outputs], dtype === 'i32' ? 'i32' : 'f32');
}
