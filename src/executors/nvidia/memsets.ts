import {
  addKernelNode,
  type GraphFunctions,
  type KernelNodeSettings,
  kindOf,
  type Memset,
  memsetOf,
  neighboursOf,
  nodesOf,
} from './bindings/graphs.ts';
import type { Kernel } from './kernel.ts';
import { namedKernel, threads } from './plain/named-kernel.ts';

/** Bytes that a thread writes of a row. */
const vectorBytes = 16;

/** Threads where a row is a few bytes, as most are. */
const fewThreads = 32;

/** The most blocks in y. */
const mostRows = 65_535;

/**
 * Does what a memset does, in the grid of {@link replaceMemsets}; not for `KernelCache.bind`, since not all of its parameters are
 * addresses. `pattern` is 4 bytes, with which rows of `bytes` bytes are filled.
 */
export const fillKernel: Kernel = namedKernel(
  'fill',
  `(char* address, long long pitch, long long rows, long long bytes, unsigned long long pattern) {
  const unsigned word = (unsigned)pattern;
  const long long start = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * ${vectorBytes};
  const long long end = start + ${vectorBytes};
  for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
    char* p = address + row * pitch;
    if (end <= bytes && (unsigned long long)(p + start) % ${vectorBytes} == 0)
      *(uint4*)(p + start) = make_uint4(word, word, word, word);
    else
      for (long long i = start; i < end && i < bytes; i++) p[i] = (char)(word >> 8 * (i & 3));
  }
}`,
  [1, 1, 1],
  [fewThreads, 1, 1],
);

/**
 * Puts a kernel in the place of each memset of a `CUgraph`, between the same nodes. cuBLASLt's and cuDNN's kernels come with memsets
 * of 4 bytes, hundreds in a training step. Each costs the host 2 us of a launch, and with so many the launch waits until the one
 * before has run; a graph of nothing but kernels is launched as a whole. All else stays where it is, for a graph owns what
 * NCCL recorded in it.
 * @param fill the `CUfunction` of {@link fillKernel}, whose module must outlive what is made of the graph.
 */
export function replaceMemsets(driver: GraphFunctions, graph: bigint, fill: bigint): void {
  const memsets = nodesOf(driver, graph).filter((node) => kindOf(driver, node) === 'memset');
  for (const node of memsets) {
    const { before, after } = neighboursOf(driver, node);
    addKernelNode(driver, graph, fillNode(memsetOf(driver, node), fill), before, after);
    driver.check(driver.cuGraphDestroyNode(node), 'remove a memset of a graph');
  }
}

function fillNode(memset: Memset, handle: bigint): KernelNodeSettings {
  const { address, pitch, rows, width, elementBytes } = memset;
  const bytes = width * elementBytes;
  const inBlock = bytes <= fewThreads * vectorBytes ? fewThreads : threads;
  const across = Math.max(1, Math.ceil(bytes / (inBlock * vectorBytes)));
  return {
    handle,
    grid: [across, Math.min(Math.max(rows, 1), mostRows), 1],
    block: [inBlock, 1, 1],
    parameters: [address, BigInt(pitch), BigInt(rows), BigInt(bytes), patternOf(memset)],
  };
}

/** A value over 4 bytes. */
function patternOf({ value, elementBytes }: Memset): bigint {
  switch (elementBytes) {
    case 1:
      return BigInt((value & 0xff) * 0x01010101);
    case 2:
      return BigInt((value & 0xffff) * 0x00010001);
    default:
      return BigInt(value);
  }
}
