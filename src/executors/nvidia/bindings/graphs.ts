import { type Bound, NativeMemory } from './native.ts';

/**
 * The driver's functions that look into graphs and change them. Those that list dependencies are the first editions, which every
 * driver of CUDA 12 has: they know ordinary dependencies alone, but only kernels have others.
 */
export const graphPrototypes = {
  cuGraphGetNodes: ['int', 'pointer', 'pointer', 'pointer'],
  cuGraphNodeGetType: ['int', 'pointer', 'pointer'],
  cuGraphNodeGetDependencies: ['int', 'pointer', 'pointer', 'pointer'],
  cuGraphNodeGetDependentNodes: ['int', 'pointer', 'pointer', 'pointer'],
  cuGraphMemsetNodeGetParams: ['int', 'pointer', 'pointer'],
  cuGraphAddKernelNode_v2: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer'],
  cuGraphAddDependencies: ['int', 'pointer', 'pointer', 'pointer', 'size'],
  cuGraphDestroyNode: ['int', 'pointer'],
} as const;

/** Those functions, and the check of their status. */
export type GraphFunctions = Bound<typeof graphPrototypes> & {
  readonly check: (status: number, action: string) => void;
};

/** `CUgraphNodeType` by number. */
const kinds = [
  'kernel',
  'memcpy',
  'memset',
  'host',
  'graph',
  'empty',
  'event wait',
  'event record',
  'semaphore signal',
  'semaphore wait',
  'allocation',
  'free',
  'memory operations',
  'conditional',
] as const;

/** What a node of a graph is. */
export type NodeKind = (typeof kinds)[number];

/** What a memset node does: `rows` times `width` elements of `elementBytes` with this value, `pitch` bytes from row to row. */
export interface Memset {
  readonly address: bigint;
  readonly pitch: number;
  /** Of which the lowest `elementBytes` count. */
  readonly value: number;
  readonly elementBytes: number;
  readonly width: number;
  readonly rows: number;
}

/** A kernel that becomes a node. */
export interface KernelNodeSettings {
  /** `CUfunction`. */
  readonly handle: bigint;
  readonly grid: readonly [x: number, y: number, z: number];
  readonly block: readonly [x: number, y: number, z: number];
  /** Of 8 bytes each. */
  readonly parameters: readonly bigint[];
}

/** Bytes of `CUDA_MEMSET_NODE_PARAMS` and `CUDA_KERNEL_NODE_PARAMS_v2`. */
const [memsetBytes, kernelBytes] = [40, 72];

/** The nodes of a `CUgraph`, in the order of their making. */
export function nodesOf(driver: GraphFunctions, graph: bigint): readonly bigint[] {
  return listed(driver, (nodes, count) => driver.cuGraphGetNodes(graph, nodes, count));
}

/** The nodes that a memset waits for, and those that wait for it. */
export function neighboursOf(
  driver: GraphFunctions,
  node: bigint,
): { readonly before: readonly bigint[]; readonly after: readonly bigint[] } {
  return {
    before: listed(driver, (nodes, count) => driver.cuGraphNodeGetDependencies(node, nodes, count)),
    after: listed(driver, (nodes, count) => driver.cuGraphNodeGetDependentNodes(node, nodes, count)),
  };
}

/** What a node is. */
export function kindOf(driver: GraphFunctions, node: bigint): NodeKind {
  const type = new NativeMemory(4);
  driver.check(driver.cuGraphNodeGetType(node, type.bytes), 'read the kind of a node');
  return kinds[type.int()] ?? 'conditional';
}

/** What a memset node does. */
export function memsetOf(driver: GraphFunctions, node: bigint): Memset {
  const raw = new NativeMemory(memsetBytes);
  driver.check(driver.cuGraphMemsetNodeGetParams(node, raw.bytes), 'read a memset of a graph');
  return {
    address: raw.pointer(),
    pitch: raw.size(8),
    value: raw.view.getUint32(16, true),
    elementBytes: raw.int(20),
    width: raw.size(24),
    rows: raw.size(32),
  };
}

/**
 * Adds a kernel to a `CUgraph`, which keeps a copy of its parameters.
 * @param before the nodes that it waits for.
 * @param after the nodes that wait for it.
 */
export function addKernelNode(
  driver: GraphFunctions,
  graph: bigint,
  { handle, grid, block, parameters }: KernelNodeSettings,
  before: readonly bigint[],
  after: readonly bigint[],
): void {
  // One piece of memory, which the call keeps alive: the structure, the addresses of the parameters, the parameters.
  const places = kernelBytes + 8 * parameters.length;
  const raw = new NativeMemory(places + 8 * parameters.length);
  raw.view.setBigUint64(0, handle, true);
  [...grid, ...block].forEach((size, index) => {
    raw.view.setUint32(8 + 4 * index, size, true);
  });
  raw.view.setBigUint64(40, raw.address + BigInt(kernelBytes), true);
  parameters.forEach((value, index) => {
    raw.view.setBigUint64(kernelBytes + 8 * index, raw.address + BigInt(places + 8 * index), true);
    raw.view.setBigUint64(places + 8 * index, value, true);
  });
  const out = new NativeMemory(8);
  const waitedFor = NativeMemory.pointers(before).bytes;
  const added = driver.cuGraphAddKernelNode_v2(out.bytes, graph, waitedFor, before.length, raw.bytes);
  driver.check(added, 'add a kernel to a graph');
  const from = NativeMemory.pointers(after.map(() => out.pointer())).bytes;
  const waiting = NativeMemory.pointers(after).bytes;
  const status = driver.cuGraphAddDependencies(graph, from, waiting, after.length);
  driver.check(status, 'add dependencies to a graph');
}

/** The nodes that a function of the driver lists; given no place for them it counts them. */
function listed(
  driver: GraphFunctions,
  list: (nodes: Uint8Array | null, count: Uint8Array) => number,
): readonly bigint[] {
  const count = new NativeMemory(8);
  driver.check(list(null, count.bytes), 'count the nodes of a graph');
  if (count.size() === 0) return [];
  const nodes = new NativeMemory(8 * count.size());
  driver.check(list(nodes.bytes, count.bytes), 'read the nodes of a graph');
  return Array.from({ length: count.size() }, (_, index) => nodes.pointer(8 * index));
}
