import { at, elementCount, type Shape } from '../../../tensor/shape.ts';
import { type Node, type NodeOf, resultsOf } from '../../../tensor/tensor.ts';
import { type Cudnn, CudnnError } from '../bindings/cudnn.ts';
import type { Device } from '../device.ts';
import type { KernelCache, Launch } from '../kernel-cache.ts';
import type { Storage } from '../storage.ts';
import { fromBf16Kernel, isPadded, type PaddedRows, toBf16Kernel } from './conversion-kernels.ts';
import { CudnnGraph, type CudnnPlan, type CudnnTensor } from './cudnn-graph.ts';
import { type ConvolutionProblem, directConvolution, type StoredTypes } from './direct-convolution.ts';
import { type GemmLibrary, gemmType } from './gemm.ts';
import type { LibraryCall } from './library-call.ts';

/** A convolution or one of its gradients. */
export type ConvolutionNode = NodeOf<
  'convolution' | 'convolutionInputGradient' | 'convolutionKernelGradient'
>;

/** What lowering a convolution needs. */
export interface ConvolutionContext {
  readonly device: Device;
  readonly kernels: KernelCache;
  readonly gemm: GemmLibrary;
  /** Undefined for strict float32, which cuDNN is not asked for. */
  readonly cudnn: Cudnn | undefined;
  /** Plans made before, by problem; undefined for a problem that cuDNN has no engine for. */
  readonly plans: Map<string, CudnnConvolution | undefined>;
}

/** A cuDNN graph of a convolution, and its fastest plan. */
export interface CudnnConvolution {
  readonly graph: CudnnGraph;
  readonly plan: CudnnPlan;
  readonly tensors: Readonly<Record<Role, CudnnTensor>>;
}

type Role = 'x' | 'kernel' | 'y';

/** Engines that are timed for each convolution. */
const candidates = 5;

/** cuDNN's tensor core engines take channels in eights. */
const channelMultiple = 8;

/**
 * A convolution: a matrix product where the window is a single position, else cuDNN in bfloat16 with float32 sums,
 * else plain loops in float32.
 */
export function lowerConvolution(
  context: ConvolutionContext,
  node: ConvolutionNode,
  storage: Storage,
): LibraryCall {
  const problem = problemOf(node);
  const [a, b] = node.operands;
  const stored: StoredTypes = [storage(a), storage(b), storage(at(resultsOf(node as Node), 0))];
  if (elementCount(resultShape(problem)) === 0) return { scratch: [], kernels: [], bind: () => [] };
  const isEmpty = elementCount(problem.x) * elementCount(problem.y) === 0;
  if (isPointwise(problem) && !isEmpty) return asMatmul(context, problem, stored);
  if (!isEmpty) {
    const planned = context.cudnn && planConvolution(context, context.cudnn, withTwoAxes(problem));
    if (planned !== undefined) return asCudnn(context, withTwoAxes(problem), planned, stored);
  }
  const kernel = directConvolution(problem, stored);
  return {
    scratch: [],
    kernels: [kernel],
    bind: ({ inputs, outputs }) => [context.kernels.bind(kernel, [...inputs, ...outputs])],
  };
}

/** The shapes of a node, in the same form for the three operations. */
export function problemOf({
  op,
  operands: [a, b],
  attributes,
  results,
}: ConvolutionNode): ConvolutionProblem {
  const { strides, padding } = attributes;
  const result = at(results, 0).shape;
  switch (op) {
    case 'convolution':
      return { kind: 'forward', strides, padding, x: a.shape, kernel: b.shape, y: result };
    case 'convolutionInputGradient':
      return { kind: 'inputGradient', strides, padding, x: result, kernel: b.shape, y: a.shape };
    case 'convolutionKernelGradient':
      return { kind: 'kernelGradient', strides, padding, x: a.shape, kernel: result, y: b.shape };
  }
}

/** The roles of a problem's first operand, second operand and result. */
function rolesOf({ kind }: ConvolutionProblem): readonly [a: Role, b: Role, out: Role] {
  const roles = {
    forward: ['x', 'kernel', 'y'],
    inputGradient: ['y', 'kernel', 'x'],
    kernelGradient: ['x', 'y', 'kernel'],
  } as const;
  return roles[kind];
}

function resultShape(problem: ConvolutionProblem): Shape {
  return problem[rolesOf(problem)[2]];
}

function isPointwise({ kernel, strides, padding }: ConvolutionProblem): boolean {
  return (
    kernel.slice(1, -1).every((size) => size === 1) &&
    strides.every((stride) => stride === 1) &&
    padding.every(([before, after]) => before === 0 && after === 0)
  );
}

/** y [P, Cout] = x [P, Cin] kernel^T, and its two gradients. */
function asMatmul(
  { gemm }: ConvolutionContext,
  problem: ConvolutionProblem,
  [operands, , result]: StoredTypes,
): LibraryCall {
  const positions = elementCount(problem.y.slice(0, -1));
  const [cin, cout] = [at(problem.x, problem.x.length - 1), at(problem.y, problem.y.length - 1)];
  const common = { batch: 1, strideA: 0, strideB: 0, alignment: 16 } as const;
  const types = { dtype: gemmType(operands), result: gemmType(result) };
  const products = {
    forward: { m: positions, n: cout, k: cin, transposeA: false, transposeB: true },
    inputGradient: { m: positions, n: cin, k: cout, transposeA: false, transposeB: false },
    kernelGradient: { m: cout, n: cin, k: positions, transposeA: true, transposeB: false },
  };
  const plan = gemm.plan({ ...products[problem.kind], ...common, ...types });
  return {
    scratch: [],
    kernels: [],
    bind: ({ inputs, outputs }) => {
      const [first, second] = [at(inputs, 0), at(inputs, 1)];
      const [a, b] = problem.kind === 'kernelGradient' ? [second, first] : [first, second];
      return [plan.bind(a, b, at(outputs, 0))];
    },
  };
}

/**
 * The problem with two or three spatial axes, as cuDNN has engines for: an axis of size 1 before a single one, and time
 * joined with the batch where the window is one frame.
 */
function withTwoAxes(problem: ConvolutionProblem): ConvolutionProblem {
  const { x, y, kernel, strides, padding } = problem;
  if (strides.length === 1) {
    const grow = ([first = 1, ...rest]: Shape): Shape => [first, 1, ...rest];
    return {
      ...problem,
      x: grow(x),
      y: grow(y),
      kernel: grow(kernel),
      strides: [1, ...strides],
      padding: [[0, 0], ...padding],
    };
  }
  const [before, after] = at(padding, 0);
  if (strides.length === 3 && kernel[1] === 1 && strides[0] === 1 && before === 0 && after === 0) {
    const join = ([samples = 1, frames = 1, ...rest]: Shape): Shape => [samples * frames, ...rest];
    const [outputs = 1, , ...window] = kernel;
    return {
      ...problem,
      x: join(x),
      y: join(y),
      kernel: [outputs, ...window],
      strides: strides.slice(1),
      padding: padding.slice(1),
    };
  }
  return problem;
}

function padded(channels: number): number {
  return Math.ceil(channels / channelMultiple) * channelMultiple;
}

/** How the tensor of a role is laid out for cuDNN: as rows of channels, padded. */
function rowsOf(problem: ConvolutionProblem, role: Role): PaddedRows {
  const shape = problem[role];
  const channels = at(shape, shape.length - 1);
  const rows = elementCount(shape) / channels;
  // Rows of a kernel are its output channels times its taps, and output channels are padded too.
  const outputs = at(shape, 0);
  const paddedRows = role === 'kernel' ? (rows / outputs) * padded(outputs) : rows;
  return { rows, channels, paddedRows, paddedChannels: padded(channels) };
}

function paddedBytes({ paddedRows, paddedChannels }: PaddedRows): number {
  return 2 * paddedRows * paddedChannels;
}

/** Brings tensors to cuDNN, which takes bf16 of channels in eights, and back; what is stored so stays where it is. */
function asCudnn(
  { kernels }: ConvolutionContext,
  problem: ConvolutionProblem,
  { plan, tensors }: CudnnConvolution,
  stored: StoredTypes,
): LibraryCall {
  const roles = rolesOf(problem);
  const rows = roles.map((role) => rowsOf(problem, role));
  const isDirect = rows.map((one, index) => stored[index] === 'bf16' && !isPadded(one));
  const conversions = rows.map((one, index) =>
    (index < 2 ? toBf16Kernel : fromBf16Kernel)(one, stored[index] === 'bf16' ? 'bf16' : 'f32'),
  );
  return {
    scratch: [...rows.map((one, index) => (isDirect[index] ? 0 : paddedBytes(one))), plan.workspaceBytes],
    kernels: conversions.filter((_, index) => !isDirect[index]),
    bind: ({ inputs, outputs, scratch }): Launch[] => {
      const given = [...inputs, ...outputs];
      const places = roles.map((_, index) => at(isDirect[index] ? given : scratch, index));
      const convert = (index: number): Launch[] => {
        const way = [at(given, index), at(places, index)];
        return isDirect[index] ? [] : [kernels.bind(at(conversions, index), index < 2 ? way : way.reverse())];
      };
      return [
        ...convert(0),
        ...convert(1),
        plan.bind(
          roles.map((role, index) => [tensors[role], at(places, index)] as const),
          at(scratch, 3),
        ),
        ...convert(2),
      ];
    },
  };
}

/** The fastest plan of cuDNN for a problem; undefined when it has none. */
function planConvolution(
  context: ConvolutionContext,
  cudnn: Cudnn,
  problem: ConvolutionProblem,
): CudnnConvolution | undefined {
  const key = JSON.stringify(problem);
  if (!context.plans.has(key)) context.plans.set(key, findPlan(context.device, cudnn, problem));
  return context.plans.get(key);
}

function findPlan(device: Device, cudnn: Cudnn, problem: ConvolutionProblem): CudnnConvolution | undefined {
  const graph = new CudnnGraph(cudnn);
  try {
    const tensors = {
      x: channelsLast(graph, problem.x, false),
      kernel: channelsLast(graph, problem.kernel, true),
      y: channelsLast(graph, problem.y, false),
    };
    graph.convolution({
      kind: problem.kind,
      strides: problem.strides,
      before: problem.padding.map(([before]) => before),
      after: problem.padding.map(([, after]) => after),
      ...tensors,
    });
    const roles = rolesOf(problem);
    const sizes = roles.map((role) => paddedBytes(rowsOf(problem, role)));
    const plan = fastest(device, graph.plans(candidates), sizes, (candidate, blocks, workspace) =>
      candidate.bind(
        roles.map((role, index) => [tensors[role], at(blocks, index)] as const),
        workspace,
      ),
    );
    return { graph, plan, tensors };
  } catch (error) {
    graph[Symbol.dispose]();
    if (error instanceof CudnnError) return undefined;
    throw error;
  }
}

/** Times plans on memory of their own. */
function fastest(
  device: Device,
  plans: readonly CudnnPlan[],
  sizes: readonly number[],
  bind: (plan: CudnnPlan, blocks: readonly bigint[], workspace: bigint) => Launch,
): CudnnPlan {
  const blocks = sizes.map((size) => device.memory.allocate(size));
  const workspace = device.memory.allocate(Math.max(...plans.map(({ workspaceBytes }) => workspaceBytes)));
  try {
    sizes.forEach((size, index) => {
      device.clear(at(blocks, index), size);
    });
    let [best, least] = [at(plans, 0), Number.POSITIVE_INFINITY];
    for (const plan of plans) {
      const taken = timePlan(device, bind(plan, blocks, workspace));
      if (taken < least) [best, least] = [plan, taken];
    }
    return best;
  } finally {
    for (const block of [...blocks, workspace]) device.memory.release(block);
  }
}

/** Milliseconds of a plan; infinite for one that its engine refuses to run. */
function timePlan(device: Device, launch: Launch): number {
  try {
    launch();
    return device.time(launch, 3);
  } catch (error) {
    if (error instanceof CudnnError) return Number.POSITIVE_INFINITY;
    throw error;
  }
}

/** A tensor [N, ..spatial, C] as cuDNN names its axes, N, C, ..spatial, with channels padded. */
function channelsLast(graph: CudnnGraph, shape: Shape, isKernel: boolean): CudnnTensor {
  const [first = 1, ...rest] = shape;
  const spatial = rest.slice(0, -1);
  const channels = padded(at(rest, rest.length - 1));
  const inner = spatial.map((_, axis) => channels * elementCount(spatial.slice(axis + 1)));
  return graph.tensor({
    sizes: [isKernel ? padded(first) : first, channels, ...spatial],
    strides: [channels * elementCount(spatial), 1, ...inner],
    type: 'bf16',
  });
}
