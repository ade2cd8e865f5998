import { at, elementCount } from '../../../tensor/shape.ts';
import type { Node, NodeOf } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import { type KernelContext, resultOf, storageType } from '../plain/expression.ts';
import { namedKernel, threads } from '../plain/named-kernel.ts';

/** Elements of a block, and of a thread at a time. */
const blockElements = 8192;
const vector = 8;

/** Tensors of a launch: two pointers each, of at most 4 KiB of parameters. */
const mostCopies = 200;

/**
 * Inputs, none of them empty, written anew in another storage, such as all weights in bf16, in one launch or a few.
 * @param isFixed inputs that are copied each by itself, since executables share what is made of them copy by copy. Default: none.
 */
export function copyStages(
  copies: readonly NodeOf<'cast'>[],
  { storage }: Pick<KernelContext, 'storage'>,
  isFixed: (input: Node) => boolean = () => false,
): readonly Stage[] {
  const kinds = Map.groupBy(copies, (node) => {
    const [x] = node.operands;
    return `${isFixed(x.node)} ${storage(x)} ${storage(resultOf(node as Node))}`;
  });
  return [...kinds.values()].flatMap((alike) => {
    const [from, to] = [at(alike, 0).operands[0], resultOf(at(alike, 0) as Node)].map((tensor) =>
      storageType(storage(tensor)),
    ) as [string, string];
    const most = isFixed(at(alike, 0).operands[0].node) ? 1 : mostCopies;
    return Array.from({ length: Math.ceil(alike.length / most) }, (_, launch) =>
      copyStage(alike.slice(launch * most, (launch + 1) * most), from, to),
    );
  });
}

function copyStage(copies: readonly NodeOf<'cast'>[], from: string, to: string): Stage {
  let blocks = 0;
  const branches = copies.map(({ operands: [{ shape }] }, i) => {
    const first = blocks;
    blocks += Math.ceil(elementCount(shape) / blockElements);
    return `if (blockIdx.x < ${blocks}) { x = x${i}; y = y${i}; block = (int)blockIdx.x - ${first}; count = ${elementCount(shape)}; }`;
  });
  const kernel = namedKernel(
    'copies',
    `(${[...copies.map((_, i) => `const ${from}* __restrict__ x${i}`), ...copies.map((_, i) => `${to}* __restrict__ y${i}`)].join(', ')}) {
  const ${from}* x;
  ${to}* y;
  long long block, count;
  ${branches.join('\n  else ')}
  else return;
  const long long end = (block + 1) * ${blockElements};
  for (long long i = block * ${blockElements} + threadIdx.x * ${vector}; i < end; i += ${threads * vector}) {
    if (i + ${vector} <= count) {
      float values[${vector}];
      load${vector}(values, x, i);
      store${vector}(y, i, values);
    } else {
      for (; i < count; i++) put(y, i, get(x, i));
    }
  }
}`,
    [blocks, 1, 1],
    [threads, 1, 1],
  );
  return {
    kind: 'kernel',
    kernel,
    inputs: copies.map(({ operands: [x] }) => x),
    outputs: copies.map((node) => resultOf(node as Node)),
  };
}
