import { bytesPerElement } from '../../../tensor/dtype.ts';
import { at, elementCount } from '../../../tensor/shape.ts';
import type { NodeOf } from '../../../tensor/tensor.ts';
import type { Kernel, Stage } from '../kernel.ts';
import type { Storage } from '../storage.ts';
import { clearKernel } from './clear.ts';
import { storageType } from './expression.ts';
import { namedKernel, threads } from './named-kernel.ts';

/** Rows of zeros, and what adds updates into them. */
export function scatterStages(node: NodeOf<'scatterAdd'>, storage: Storage): readonly Stage[] {
  const output = at(node.results, 0);
  const zeros = clearKernel([elementCount(output.shape) * bytesPerElement(output.dtype)]);
  return [
    { kind: 'kernel', kernel: zeros, inputs: [], outputs: [output] },
    { kind: 'kernel', kernel: scatterKernel(node, storage), inputs: [...node.operands], outputs: [output] },
  ];
}

/** Adds updates with atomic additions: the order of equal rows varies. */
function scatterKernel(
  { operands: [, updates], attributes, results }: NodeOf<'scatterAdd'>,
  storage: Storage,
): Kernel {
  const { dtype, shape } = at(results, 0);
  if (dtype !== 'f32' && dtype !== 'i32') throw new Error(`scatterAdd has no kernel for ${dtype}`);
  const row = elementCount(shape.slice(1));
  const count = elementCount(updates.shape);
  const type = dtype === 'f32' ? 'float' : 'int';
  const from = storageType(storage(updates));
  const update = from === type ? 'updates[i]' : 'get(updates, i)';
  return namedKernel(
    'scatter_add',
    `(const int* indices, const ${from}* updates, ${type}* y) {
  const long long i = blockIdx.x * ${threads}LL + threadIdx.x;
  if (i >= ${count}LL) return;
  const int row = indices[i / ${Math.max(row, 1)}LL];
  if (row >= 0 && row < ${attributes.rows}) atomicAdd(y + row * ${row}LL + i % ${Math.max(row, 1)}LL, ${update});
}`,
    [Math.max(1, Math.ceil(count / threads)), 1, 1],
    [threads, 1, 1],
  );
}
