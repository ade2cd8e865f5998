import { at } from '../../../tensor/shape.ts';
import { constant, type Tensor } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import { storageType } from '../plain/expression.ts';
import { namedKernel, threads } from '../plain/named-kernel.ts';
import { elementLoop } from './group-kernel.ts';
import { RowWriter } from './row-writer.ts';
import type { FusionContext, Unit } from './units.ts';

/** Elements of a block, and largest number of blocks that share one sum. */
const blockElements = 4096;
const mostBlocks = 64;

/**
 * Sums of whole tensors, such as the squares of every gradient, in two launches: each tensor has blocks of its own, and
 * then a warp that adds up what they found, always in the same order.
 */
export function totalStages(units: readonly Unit[], context: FusionContext): readonly Stage[] {
  const inputs: Tensor[] = [];
  let blocks = 0;
  const branches: string[] = [];
  const ranges: (readonly [first: number, last: number])[] = [];
  for (const unit of units) {
    const own = Math.max(1, Math.min(mostBlocks, Math.ceil(unit.count / blockElements)));
    branches.push(
      `if (blockIdx.x < ${blocks + own}) {`,
      ...totalOf(unit, inputs, `((int)blockIdx.x - ${blocks})`, own, context),
      '} else',
    );
    ranges.push([blocks, blocks + own]);
    blocks += own;
  }
  const partial = blocks === 1 ? at(units, 0).output : constant([0], [blocks], 'f32');
  const first = namedKernel(
    'totals',
    `(${[...inputs.map((input, i) => `const ${storageType(context.storage(input))}* __restrict__ x${i}`), 'float* y'].join(', ')}) {
  float total = 0.0f;
  ${branches.join('\n  ')} return;
  total = block_sum(total);
  if (threadIdx.x == 0) y[blockIdx.x] = total;
}`,
    [blocks, 1, 1],
    [threads, 1, 1],
  );
  const stage: Stage = { kind: 'kernel', kernel: first, inputs, outputs: [partial] };
  return blocks === 1 ? [stage] : [stage, joinTotals(partial, units, ranges)];
}

/** The share of a block in the sum of one tensor. */
function totalOf(
  { expression, count }: Unit,
  inputs: Tensor[],
  block: string,
  blocks: number,
  { indexType, storage, isInlined, isRepeated, isView }: FusionContext,
): readonly string[] {
  const vector = count % 4 === 0 ? 4 : 1;
  const isComputed = (tensor: Tensor) => isInlined(tensor) || isRepeated(tensor) || isView(tensor);
  const space = { rows: 1, length: count };
  const writer = new RowWriter({ space, vector, held: undefined, indexType, storage, isComputed, inputs });
  const value = writer.expression.element(expression, writer.home(expression.shape));
  return [
    'const int row = 0;',
    ...writer.rowLines,
    `for (${indexType} i0 = (${block} * ${threads} + (int)threadIdx.x) * ${vector}; i0 < ${count}; i0 += ${blocks * threads * vector}) {`,
    `const ${indexType} c0 = i0;`,
    ...writer.chunkLines,
    ...elementLoop(writer, vector, indexType, [`total += ${value};`]),
    '}',
  ];
}

function joinTotals(
  partial: Tensor,
  units: readonly Unit[],
  ranges: readonly (readonly [first: number, last: number])[],
): Stage {
  const cases = ranges.map(
    ([first, last], unit) => `case ${unit}: first = ${first}; last = ${last}; y = y${unit}; break;`,
  );
  const kernel = namedKernel(
    'join_totals',
    `(${['const float* x', ...units.map((_, unit) => `float* y${unit}`)].join(', ')}) {
  int first = 0, last = 0;
  float* y = y0;
  switch (blockIdx.x) {
  ${cases.join('\n  ')}
  }
  float total = 0.0f;
  for (int part = first + (int)threadIdx.x; part < last; part += 32) total += x[part];
  total = warp_sum(total);
  if (threadIdx.x == 0) *y = total;
}`,
    [units.length, 1, 1],
    [32, 1, 1],
  );
  return { kind: 'kernel', kernel, inputs: [partial], outputs: units.map(({ output }) => output) };
}
