import type { Kernel } from '../kernel.ts';
import { threads } from './named-kernel.ts';

/** Bytes of a block, and of a thread at a time. */
const blockBytes = 32 << 10;
const vectorBytes = 16;

/**
 * Zeros in pieces of memory of these sizes, each a parameter. A memset would do the same, but several of them take longer, and
 * a recorded graph is launched faster when all that it consists of are kernels.
 */
export function clearKernel(bytes: readonly number[]): Kernel {
  const name = `clear_${bytes.join('_')}`;
  let blocks = 0;
  const branches = bytes.map((size, i) => {
    const first = blocks;
    blocks += Math.ceil(size / blockBytes);
    return `if (blockIdx.x < ${blocks}) { p = p${i}; block = (int)blockIdx.x - ${first}; bytes = ${size}LL; }`;
  });
  return {
    name,
    source: `extern "C" __global__ void ${name}(${bytes.map((_, i) => `char* p${i}`).join(', ')}) {
  char* p;
  long long block, bytes;
  ${branches.join('\n  else ')}
  else return;
  const long long end = (block + 1) * ${blockBytes} < bytes ? (block + 1) * ${blockBytes} : bytes;
  for (long long i = block * ${blockBytes} + threadIdx.x * ${vectorBytes}; i < end; i += ${threads * vectorBytes}) {
    if (i + ${vectorBytes} <= end) *(uint4*)(p + i) = make_uint4(0, 0, 0, 0);
    else for (long long j = i; j < end; j++) p[j] = 0;
  }
}`,
    grid: [Math.max(1, blocks), 1, 1],
    block: [threads, 1, 1],
    sharedBytes: 0,
  };
}
