import { createHash } from 'node:crypto';
import { elementCount } from '../../../tensor/shape.ts';
import type { Tensor } from '../../../tensor/tensor.ts';
import type { Kernel } from '../kernel.ts';
import { type KernelContext, storageType } from './expression.ts';

/** Threads of most blocks. */
export const threads = 256;

/** A kernel whose body runs for each position `i` of the output. */
export function kernelOf(
  kind: string,
  inputs: readonly Tensor[],
  output: Tensor,
  { indexType, storage }: Pick<KernelContext, 'indexType' | 'storage'>,
  body: readonly string[],
): Kernel {
  const count = elementCount(output.shape);
  const parameters = inputs.map((input, i) => `const ${storageType(storage(input))}* x${i}`);
  const rest = `(${[...parameters, `${storageType(storage(output))}* y`].join(', ')}) {
  const ${indexType} i = (${indexType})blockIdx.x * ${threads} + threadIdx.x;
  if (i >= ${count}) return;
  ${body.join('\n  ')}
}`;
  const grid = Math.max(1, Math.ceil(count / threads));
  return namedKernel(kind, rest, [grid, 1, 1], [threads, 1, 1]);
}

/** A kernel named by what it does; `rest` is its source from the parameters on, `attributes` what stands before. */
export function namedKernel(
  kind: string,
  rest: string,
  grid: Kernel['grid'],
  block: Kernel['block'],
  sharedBytes = 0,
  attributes = '',
): Kernel {
  const key = `${attributes}${rest}\n${grid}\n${block}\n${sharedBytes}`;
  const name = `${kind}_${createHash('sha256').update(key).digest('hex').slice(0, 16)}`;
  return { name, source: `extern "C" __global__ ${attributes}void ${name}${rest}`, grid, block, sharedBytes };
}
