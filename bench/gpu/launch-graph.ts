import { kindOf, memsetOf, type NodeKind, nodesOf } from '../../src/executors/nvidia/bindings/graphs.ts';
import { bindLibrary, NativeMemory, textAt } from '../../src/executors/nvidia/bindings/native.ts';
import { type Device, LaunchGraph } from '../../src/executors/nvidia/device.ts';

const prototypes = {
  cuCtxGetCurrent: ['int', 'pointer'],
  cuFuncGetName: ['int', 'pointer', 'pointer'],
  cuKernelGetName: ['int', 'pointer', 'pointer'],
  cuFuncGetParamInfo: ['int', 'pointer', 'size', 'pointer', 'pointer'],
  cuKernelGetParamInfo: ['int', 'pointer', 'size', 'pointer', 'pointer'],
  cuFuncGetAttribute: ['int', 'pointer', 'int', 'pointer'],
  cuGraphCreate: ['int', 'pointer', 'uint'],
  cuGraphGetEdges_v2: ['int', 'pointer', 'pointer', 'pointer', 'pointer', 'pointer'],
  cuGraphKernelNodeGetParams_v2: ['int', 'pointer', 'pointer'],
  cuGraphMemsetNodeGetParams: ['int', 'pointer', 'pointer'],
  cuGraphMemcpyNodeGetParams: ['int', 'pointer', 'pointer'],
  cuGraphAddKernelNode_v2: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer'],
  cuGraphAddMemsetNode: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer', 'pointer'],
  cuGraphAddMemcpyNode: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer', 'pointer'],
  cuGraphAddEmptyNode: ['int', 'pointer', 'pointer', 'pointer', 'size'],
  cuGraphAddDependencies_v2: ['int', 'pointer', 'pointer', 'pointer', 'pointer', 'size'],
  cuGraphKernelNodeCopyAttributes: ['int', 'pointer', 'pointer'],
  cuGraphKernelNodeGetAttribute: ['int', 'pointer', 'int', 'pointer'],
} as const;

/** Who launched a kernel, as its name says. */
export type Origin = 'ours' | 'cuBLASLt' | 'cuDNN' | 'others';

/** A kernel of a graph. */
export interface KernelNode {
  readonly handle: bigint;
  readonly kind: 'kernel';
  readonly name: string;
  readonly origin: Origin;
  /** Of its parameters; undefined where the driver does not say. */
  readonly parameterBytes: number | undefined;
  readonly sharedBytes: number;
  /** Local memory of a thread. */
  readonly localBytes: number;
  /** Blocks of a cluster; 0: it has none. */
  readonly cluster: number;
  readonly isCooperative: boolean;
  readonly priority: number;
  /** `CUDA_KERNEL_NODE_PARAMS`, which points into the graph. */
  readonly raw: NativeMemory;
}

/** A memset of a graph. */
export interface MemsetNode {
  readonly handle: bigint;
  readonly kind: 'memset';
  readonly bytes: number;
  /** `CUDA_MEMSET_NODE_PARAMS`. */
  readonly raw: NativeMemory;
}

/** A copy of a graph. */
export interface CopyNode {
  readonly handle: bigint;
  readonly kind: 'memcpy';
  readonly bytes: number;
  /** `CUDA_MEMCPY3D`. */
  readonly raw: NativeMemory;
}

/** A node of a graph. */
export type GraphNode =
  | KernelNode
  | MemsetNode
  | CopyNode
  | { readonly handle: bigint; readonly kind: Exclude<NodeKind, 'kernel' | 'memset' | 'memcpy'> };

/** A dependency between two nodes. */
export interface Edge {
  readonly from: bigint;
  readonly to: bigint;
  /** Whether a kernel may begin before the one before it ends. */
  readonly isProgrammatic: boolean;
}

/** How long the host takes to launch a graph, in microseconds, and the GPU to run it. */
export interface LaunchTimes {
  /** Median, nothing else being queued. */
  readonly idle: number;
  /** Median of launches that follow each other. */
  readonly queued: number;
  /** Of the GPU, in milliseconds. */
  readonly milliseconds: number;
  readonly rounds: number;
}

/** Bytes of `CUDA_KERNEL_NODE_PARAMS_v2`, `CUDA_MEMSET_NODE_PARAMS` and `CUDA_MEMCPY3D`. */
const [kernelBytes, memsetBytes, memcpyBytes, attributeBytes] = [72, 40, 200, 64];

/** `CUkernelNodeAttrID`. */
const attributes = { cooperative: 2, cluster: 4, priority: 8 };

/** `CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES`. */
const localSize = 3;

/** Looks into recorded graphs and builds others of their nodes. */
export class GraphWorkshop {
  private readonly device: Device;
  private readonly cuda: ReturnType<typeof bindLibrary<typeof prototypes>>;
  private readonly context: bigint;

  constructor(device: Device) {
    this.device = device;
    this.cuda = bindLibrary(device.driver.path, prototypes);
    const out = new NativeMemory(8);
    this.check(this.cuda.cuCtxGetCurrent(out.bytes), 'cuCtxGetCurrent');
    this.context = out.pointer();
  }

  /** The nodes, in the order of their making. */
  nodesOf(graph: bigint): readonly GraphNode[] {
    return nodesOf(this.device.driver, graph).map((handle) => this.nodeOf(handle));
  }

  /** The dependencies. */
  edgesOf(graph: bigint): readonly Edge[] {
    const count = new NativeMemory(8);
    this.check(this.cuda.cuGraphGetEdges_v2(graph, null, null, null, count.bytes), 'cuGraphGetEdges');
    const [from, to, data] = [0, 1, 2].map(() => new NativeMemory(8 * count.size())) as [
      NativeMemory,
      NativeMemory,
      NativeMemory,
    ];
    const status = this.cuda.cuGraphGetEdges_v2(graph, from.bytes, to.bytes, data.bytes, count.bytes);
    this.check(status, 'cuGraphGetEdges');
    return Array.from({ length: count.size() }, (_, index) => ({
      from: from.pointer(8 * index),
      to: to.pointer(8 * index),
      // CUgraphEdgeData: port of the source, port of the target, type.
      isProgrammatic: data.bytes[8 * index + 2] === 1,
    }));
  }

  /**
   * A graph of the nodes one after the other, with the attributes that they have. Their own graph must outlive it.
   * @param programmatic between which pairs of kernels, by the place of the second, the dependency is a programmatic one.
   */
  straight(nodes: readonly GraphNode[], programmatic: ReadonlySet<number> = new Set()): bigint {
    const out = new NativeMemory(8);
    this.check(this.cuda.cuGraphCreate(out.bytes, 0), 'cuGraphCreate');
    const graph = out.pointer();
    let before: bigint | undefined;
    for (const [place, node] of nodes.entries()) {
      const isProgrammatic = before !== undefined && programmatic.has(place);
      const dependencies = before === undefined || isProgrammatic ? [] : [before];
      const added = this.add(graph, node, dependencies);
      if (before !== undefined && isProgrammatic) this.connect(graph, before, added);
      before = added;
    }
    return graph;
  }

  /** Times of a graph, which is destroyed. @param seconds that may be spent on those of the host, about. */
  time(graph: bigint, seconds: number): LaunchTimes {
    const { driver, stream } = this.device;
    const out = new NativeMemory(8);
    const status = driver.cuGraphInstantiateWithFlags(out.bytes, graph, 0);
    this.check(status, 'cuGraphInstantiateWithFlags');
    driver.cuGraphDestroy(graph);
    this.check(driver.cuGraphUpload(out.pointer(), stream), 'cuGraphUpload');
    const launches = new LaunchGraph(this.device, out.pointer());
    try {
      return launchTimes(this.device, () => launches.launch(), seconds);
    } finally {
      launches.dispose();
    }
  }

  private nodeOf(handle: bigint): GraphNode {
    const kind = kindOf(this.device.driver, handle);
    switch (kind) {
      case 'kernel':
        return this.kernelOf(handle);
      case 'memset': {
        const raw = new NativeMemory(memsetBytes);
        this.check(this.cuda.cuGraphMemsetNodeGetParams(handle, raw.bytes), 'cuGraphMemsetNodeGetParams');
        const { elementBytes, width, rows } = memsetOf(this.device.driver, handle);
        return { handle, kind, raw, bytes: elementBytes * width * rows };
      }
      case 'memcpy': {
        const raw = new NativeMemory(memcpyBytes);
        this.check(this.cuda.cuGraphMemcpyNodeGetParams(handle, raw.bytes), 'cuGraphMemcpyNodeGetParams');
        return { handle, kind, raw, bytes: raw.size(176) * raw.size(184) * raw.size(192) };
      }
      default:
        return { handle, kind };
    }
  }

  private kernelOf(handle: bigint): KernelNode {
    const raw = new NativeMemory(kernelBytes);
    this.check(this.cuda.cuGraphKernelNodeGetParams_v2(handle, raw.bytes), 'cuGraphKernelNodeGetParams');
    const [func, kernel] = [raw.pointer(0), raw.pointer(56)];
    const out = new NativeMemory(attributeBytes);
    const named =
      func === 0n ? this.cuda.cuKernelGetName(out.bytes, kernel) : this.cuda.cuFuncGetName(out.bytes, func);
    const name = named === 0 ? textAt(out.pointer()) : 'without a name';
    const attribute = (number: number): NativeMemory => {
      const status = this.cuda.cuGraphKernelNodeGetAttribute(handle, number, out.bytes);
      if (status !== 0) out.bytes.fill(0);
      return out;
    };
    const cluster = attribute(attributes.cluster);
    const blocks = cluster.int(0) * cluster.int(4) * cluster.int(8);
    const isCooperative = attribute(attributes.cooperative).int() !== 0;
    const priority = attribute(attributes.priority).int();
    const local = func === 0n ? 1 : this.cuda.cuFuncGetAttribute(out.bytes, localSize, func);
    return {
      handle,
      kind: 'kernel',
      name,
      origin: originOf(name),
      parameterBytes: this.parameterBytes(func, kernel),
      sharedBytes: raw.int(32),
      localBytes: local === 0 ? out.int() : 0,
      cluster: blocks,
      isCooperative,
      priority,
      raw,
    };
  }

  private parameterBytes(func: bigint, kernel: bigint): number | undefined {
    const [offset, size] = [new NativeMemory(8), new NativeMemory(8)];
    const read = (index: number): number =>
      func === 0n
        ? this.cuda.cuKernelGetParamInfo(kernel, index, offset.bytes, size.bytes)
        : this.cuda.cuFuncGetParamInfo(func, index, offset.bytes, size.bytes);
    let end: number | undefined;
    for (let index = 0; read(index) === 0; index++) end = offset.size() + size.size();
    return end;
  }

  private add(graph: bigint, node: GraphNode, dependencies: readonly bigint[]): bigint {
    const [out, before, count] = [
      new NativeMemory(8),
      NativeMemory.pointers(dependencies).bytes,
      dependencies.length,
    ];
    switch (node.kind) {
      case 'kernel': {
        const added = this.cuda.cuGraphAddKernelNode_v2(out.bytes, graph, before, count, node.raw.bytes);
        this.check(added, `cuGraphAddKernelNode of ${node.name}`);
        const copied = this.cuda.cuGraphKernelNodeCopyAttributes(out.pointer(), node.handle);
        this.check(copied, `cuGraphKernelNodeCopyAttributes of ${node.name}`);
        break;
      }
      case 'memset': {
        const { bytes } = node.raw;
        const status = this.cuda.cuGraphAddMemsetNode(out.bytes, graph, before, count, bytes, this.context);
        this.check(status, 'cuGraphAddMemsetNode');
        break;
      }
      case 'memcpy': {
        const { bytes } = node.raw;
        const status = this.cuda.cuGraphAddMemcpyNode(out.bytes, graph, before, count, bytes, this.context);
        this.check(status, 'cuGraphAddMemcpyNode');
        break;
      }
      default:
        this.check(this.cuda.cuGraphAddEmptyNode(out.bytes, graph, before, count), 'cuGraphAddEmptyNode');
    }
    return out.pointer();
  }

  private connect(graph: bigint, from: bigint, to: bigint): void {
    const data = new NativeMemory(8);
    // From the programmatic port, of the programmatic type.
    [data.bytes[0], data.bytes[2]] = [1, 1];
    const [source, target] = [from, to].map((node) => NativeMemory.pointers([node]).bytes) as [
      Uint8Array,
      Uint8Array,
    ];
    const status = this.cuda.cuGraphAddDependencies_v2(graph, source, target, data.bytes, 1);
    this.check(status, 'cuGraphAddDependencies');
  }

  private check(status: number, action: string): void {
    this.device.driver.check(status, action);
  }
}

/** Launches that follow each other without waiting. */
const together = 4;
const [fewest, most] = [3, 60];

/** Times of queueing something, until `seconds` are over, and of the GPU. */
function launchTimes(device: Device, launch: () => void, seconds: number): LaunchTimes {
  const [idle, queued]: [number[], number[]] = [[], []];
  const timed = (into: number[]) => {
    const start = performance.now();
    launch();
    into.push(1000 * (performance.now() - start));
  };
  launch();
  waitOrEnd(device);
  const begin = performance.now();
  while (idle.length < fewest || (idle.length < most && performance.now() - begin < 500 * seconds)) {
    timed(idle);
    waitOrEnd(device);
  }
  const half = performance.now();
  while (queued.length < together || (queued.length < most && performance.now() - half < 500 * seconds)) {
    launch();
    for (let i = 1; i < together; i++) timed(queued);
    waitOrEnd(device);
  }
  const milliseconds = device.time(launch, together);
  return { idle: median(idle), queued: median(queued), milliseconds, rounds: idle.length };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** Milliseconds after which a graph hangs. */
const patience = 10_000;

/** Waits for the device; a graph whose nodes wait for what was left out of it would keep it for ever. */
function waitOrEnd(device: Device): void {
  const event = device.createEvent();
  device.record(event);
  const start = performance.now();
  while (!device.isDone(event)) {
    if (performance.now() - start < patience) continue;
    console.log(`the last graph hangs: nothing came of it in ${patience / 1000} s`);
    process.exit(1);
  }
  device.driver.cuEventDestroy_v2(event);
}

function originOf(name: string): Origin {
  if (/cudnn|fprop|dgrad|wgrad|sdpa|flash/i.test(name)) return 'cuDNN';
  if (/nvjet|cublas|cutlass|xmma|gemm|splitk/i.test(name)) return 'cuBLASLt';
  return /^[a-z][a-z0-9_]*$/.test(name) ? 'ours' : 'others';
}
