import { at, elementCount } from '../../../tensor/shape.ts';
import type { NodeOf } from '../../../tensor/tensor.ts';
import type { Kernel } from '../kernel.ts';
import type { Storage } from '../storage.ts';
import { literal, resultOf, storageType } from './expression.ts';
import { namedKernel } from './named-kernel.ts';

/** Rows per block: a warp for each. */
const rowsPerBlock = 8;

/** Softmax or a norm along the last axis, a warp for each row. */
export function rowKernel(
  node: NodeOf<'softmax'> | NodeOf<'layerNorm'> | NodeOf<'rmsNorm'>,
  storage: Storage,
): Kernel {
  const [x] = node.operands;
  const { shape } = x;
  const length = at(shape, shape.length - 1);
  const rows = length === 0 ? 0 : elementCount(shape) / length;
  const [from, to] = [x, resultOf(node)].map((tensor) => storageType(storage(tensor)));
  const each = (body: string) => `for (int c = lane; c < ${length}; c += 32) ${body}`;
  const bodies = {
    softmax: () => `float most = -INF;
  ${each('most = larger(most, get(x, start + c));')}
  most = warp_max(most);
  float sum = 0.0f;
  ${each('sum += expf(get(x, start + c) - most);')}
  sum = warp_sum(sum);
  ${each('put(y, start + c, expf(get(x, start + c) - most) / sum);')}`,
    layerNorm: (epsilon: number) => `float sum = 0.0f;
  ${each('sum += get(x, start + c);')}
  float mean = warp_sum(sum) / ${length}.0f;
  float square = 0.0f;
  ${each('{ float d = get(x, start + c) - mean; square += d * d; }')}
  float deviation = sqrtf(warp_sum(square) / ${length}.0f + ${literal(epsilon, 'f32')});
  ${each('put(y, start + c, (get(x, start + c) - mean) / deviation);')}`,
    rmsNorm: (epsilon: number) => `float square = 0.0f;
  ${each('{ float d = get(x, start + c); square += d * d; }')}
  float deviation = sqrtf(warp_sum(square) / ${length}.0f + ${literal(epsilon, 'f32')});
  ${each('put(y, start + c, get(x, start + c) / deviation);')}`,
  };
  const body = node.op === 'softmax' ? bodies.softmax() : bodies[node.op](node.attributes.epsilon);
  return namedKernel(
    node.op,
    `(const ${from}* x, ${to}* y) {
  const int lane = threadIdx.x % 32;
  const long long row = blockIdx.x * ${rowsPerBlock}LL + threadIdx.x / 32;
  if (row >= ${rows}LL) return;
  const long long start = row * ${length}LL;
  ${body}
}`,
    [Math.max(1, Math.ceil(rows / rowsPerBlock)), 1, 1],
    [32 * rowsPerBlock, 1, 1],
  );
}
