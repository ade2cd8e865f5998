import { bytesAt, NativeMemory } from '../../../../src/executors/nvidia/bindings/native.ts';
import type { Device } from '../../../../src/executors/nvidia/device.ts';
import type { Kernel } from '../../../../src/executors/nvidia/kernel.ts';
import type { KernelCache, Launch } from '../../../../src/executors/nvidia/kernel-cache.ts';
import type { AttentionContext } from '../../../../src/executors/nvidia/library/attention.ts';
import type {
  AttentionGraph,
  AttentionProblem,
  BackwardNames,
  ForwardNames,
} from '../../../../src/executors/nvidia/library/attention-graph.ts';
import { fastestSplits } from '../../../../src/executors/nvidia/library/attention-splits.ts';
import type {
  ConvolutionContext,
  CudnnConvolution,
} from '../../../../src/executors/nvidia/library/convolution.ts';
import type { CudnnTensor } from '../../../../src/executors/nvidia/library/cudnn-graph.ts';
import type { ConvolutionProblem } from '../../../../src/executors/nvidia/library/direct-convolution.ts';
import type { EpilogueAddresses, Gemm, GemmLibrary } from '../../../../src/executors/nvidia/library/gemm.ts';
import type { LibraryCall } from '../../../../src/executors/nvidia/library/library-call.ts';
import { attention, attentionGradient } from '../../../../src/executors/reference/attention.ts';
import { kernels as reference } from '../../../../src/executors/reference/kernels.ts';
import { fromHost, toHost, type Values } from '../../../../src/executors/reference/values.ts';
import { bytesPerElement, type DType } from '../../../../src/tensor/dtype.ts';
import { bytesOf, type HostTensor, zeros } from '../../../../src/tensor/host-tensor.ts';
import { at, elementCount, type Shape, type TensorType } from '../../../../src/tensor/shape.ts';
import type { CpuKernels } from './compile.ts';

/**
 * cuBLASLt and cuDNN on the host's memory, by plain loops: what lowered nodes launch between kernels of ours. Products
 * and convolutions are those of the reference executor, on memory laid out as the libraries are told.
 */
export class HostLibraries {
  /** Set before anything is launched. */
  compiled: CpuKernels | undefined;
  readonly convolution: ConvolutionContext;
  readonly attention: AttentionContext;

  constructor() {
    const device = {
      clear: (target: bigint, bytes: number) => bytesAt(target, bytes).fill(0),
      copy: (target: bigint, source: bigint, bytes: number) =>
        bytesAt(target, bytes).set(bytesAt(source, bytes)),
    } as unknown as Device;
    const kernels = {
      bind: (kernel: Kernel, addresses: readonly bigint[]) => () => this.compiled?.run(kernel, addresses),
    } as unknown as KernelCache;
    const gemm = { plan: (problem: Gemm) => ({ bind: bindGemm(problem) }) } as unknown as GemmLibrary;
    const plans = byProblem((problem: ConvolutionProblem) => plannedConvolution(problem));
    this.convolution = { device, kernels, gemm, cudnn: {} as never, plans: plans as never };
    this.attention = {
      device,
      kernels,
      cudnn: {} as never,
      kept: {} as never,
      forwards: byProblem(plannedForward) as never,
      backwards: byProblem(plannedBackward) as never,
      splits: fastestSplits(132),
    };
  }
}

/** Runs a lowered node: operands, poisoned scratch and results, each in memory of its own. */
export function runCall(
  call: LibraryCall,
  operands: readonly HostTensor[],
  results: readonly TensorType[],
): HostTensor[] {
  const block = (bytes: number) => {
    const memory = new NativeMemory(bytes + 512);
    memory.bytes.fill(0xff);
    const address = (memory.address + 255n) & ~255n;
    return { memory, address, bytes: bytesAt(address, bytes) };
  };
  const inputs = operands.map((tensor) => {
    const made = block(bytesOf(tensor).length);
    made.bytes.set(bytesOf(tensor));
    return made;
  });
  const outputs = results.map(({ shape, dtype }) => block(elementCount(shape) * bytesPerElement(dtype)));
  const scratch = call.scratch.map(block);
  const [given, made, own] = [inputs, outputs, scratch].map((list) => list.map(({ address }) => address));
  for (const launch of call.bind({ inputs: given!, outputs: made!, scratch: own! })) launch();
  return results.map(({ shape, dtype }, index) => {
    const tensor = zeros(dtype, shape);
    bytesOf(tensor).set(at(outputs, index).bytes);
    return tensor;
  });
}

/** A map of plans that makes each as it is asked for: its keys are problems as JSON. */
function byProblem<Problem, Plan>(make: (problem: Problem) => Plan) {
  return { has: () => true, get: (key: string) => make(JSON.parse(key) as Problem), set: () => undefined };
}

function read(address: bigint, { shape, dtype }: TensorType): Values {
  const tensor = zeros(dtype, shape);
  const bytes = bytesOf(tensor);
  bytes.set(bytesAt(address, bytes.length));
  return fromHost(tensor);
}

function write(address: bigint, type: TensorType, data: Float64Array): void {
  const bytes = bytesOf(toHost({ ...type, data }));
  bytesAt(address, bytes.length).set(bytes);
}

function bindGemm(gemm: Gemm) {
  const { m, n, k, batch, transposeA, transposeB, strideA, strideB, dtype, result, epilogue } = gemm;
  return (a: bigint, b: bigint, y: bigint, more?: EpilogueAddresses): Launch =>
    () => {
      for (let i = 0; i < batch; i++) {
        const place = (start: bigint, elements: number, type: DType) =>
          start + BigInt(i * elements * bytesPerElement(type));
        const x = read(place(a, strideA, dtype), { shape: transposeA ? [k, m] : [m, k], dtype });
        const w = read(place(b, strideB, dtype), { shape: transposeB ? [n, k] : [k, n], dtype });
        const type = { shape: [m, n], dtype: result };
        const [data] = reference.matmul([x, w], { transposeA, transposeB }, [type]);
        if (epilogue !== undefined) finish(data!, gemm, more!);
        write(place(y, m * n, result), type, data!);
      }
    };
}

/** An epilogue, where the product is. */
function finish(data: Float64Array, { m, n, result, epilogue }: Gemm, addresses: EpilogueAddresses): void {
  const bias = read(addresses.bias, { shape: [n], dtype: result });
  data.forEach((value, i) => {
    data[i] = value + at(bias.data, i % n);
  });
  const type = { shape: [m, n], dtype: result };
  if (epilogue === 'biasGeluKeepingSum') write(addresses.sum, type, data);
  if (epilogue !== 'bias') data.set(reference.gelu([{ ...type, data }], {}, [type])[0]!);
}

type Bindings = readonly (readonly [CudnnTensor, bigint])[];

/** Tensors by name, and where a plan was given them. */
function named<Name extends string>(names: readonly Name[]) {
  const tensors = Object.fromEntries(
    names.map((name, id) => [name, { id, sizes: [], descriptor: 0n }]),
  ) as unknown as Record<Name, CudnnTensor>;
  const places = (bound: Bindings) => {
    const byId = new Map(bound.map(([{ id }, address]) => [id, address]));
    return (name: Name) => {
      const address = byId.get(tensors[name].id);
      if (address === undefined) throw new Error(`${name} was not bound`);
      return address;
    };
  };
  return { tensors, places };
}

function plannedConvolution({ kind, strides, padding, ...shapes }: ConvolutionProblem): CudnnConvolution {
  const { tensors, places } = named(['x', 'kernel', 'y']);
  const eights = (channels: number) => 8 * Math.ceil(channels / 8);
  const widened = (shape: Shape) => [...shape.slice(0, -1), eights(at(shape, shape.length - 1))];
  const type = (shape: Shape): TensorType => ({ shape, dtype: 'bf16' });
  const [x, y] = [type(widened(shapes.x)), type(widened(shapes.y))];
  const kernel = type([eights(at(shapes.kernel, 0)), ...widened(shapes.kernel).slice(1)]);
  const run = (address: (name: 'x' | 'kernel' | 'y') => bigint): void => {
    const given = (name: 'x' | 'kernel' | 'y') => read(address(name), { x, kernel, y }[name]);
    const geometry = { strides, padding };
    if (kind === 'forward') {
      const [data] = reference.convolution([given('x'), given('kernel')], geometry, [y]);
      write(address('y'), y, data!);
    } else if (kind === 'inputGradient') {
      const inputSize = x.shape.slice(1, -1);
      const operands: [Values, Values] = [given('y'), given('kernel')];
      const [data] = reference.convolutionInputGradient(operands, { ...geometry, inputSize }, [x]);
      write(address('x'), x, data!);
    } else {
      const kernelSize = kernel.shape.slice(1, -1);
      const operands: [Values, Values] = [given('x'), given('y')];
      const [data] = reference.convolutionKernelGradient(operands, { ...geometry, kernelSize }, [kernel]);
      write(address('kernel'), kernel, data!);
    }
  };
  const plan = { workspaceBytes: 64, bind: (bound: Bindings) => () => run(places(bound)) };
  return { graph: {} as never, plan: plan as never, tensors };
}

const indexNames = ['queryLengths', 'keyLengths', 'tokenOffsets', 'statisticOffsets'] as const;
type IndexName = (typeof indexNames)[number];

function planned<Name extends ForwardNames | BackwardNames>(
  problem: AttentionProblem,
  names: readonly Name[],
  run: (items: readonly Item[], address: (name: Name) => bigint) => void,
): AttentionGraph<Name> {
  const { tensors, places } = named<Name | IndexName>([...names, ...indexNames]);
  const { hasLengths, packedTokens } = problem;
  const bind = (bound: Bindings) => () => {
    const address = places(bound);
    run(itemsOf(problem, address as (name: IndexName) => bigint), address);
  };
  return {
    graph: {} as never,
    plan: { workspaceBytes: 128, bind } as never,
    tensors,
    ...(hasLengths && {
      lengths: {
        queries: tensors.queryLengths,
        // Packed queries and keys have the same lengths, bound once.
        keys: packedTokens === undefined ? tensors.keyLengths : { ...tensors.keyLengths, id: 1000 },
      },
    }),
    ...(packedTokens !== undefined && {
      offsets: { tokens: tensors.tokenOffsets, statistics: tensors.statisticOffsets },
    }),
  };
}

/** One item of a batch: how many queries and keys it has, and where they are, in elements. */
interface Item {
  readonly queries: number;
  readonly keys: number;
  readonly queryStart: number;
  readonly keyStart: number;
  readonly valueStart: number;
  readonly statistic: (query: number, head: number) => number;
  readonly problem: AttentionProblem;
}

function itemsOf(problem: AttentionProblem, address: (name: IndexName) => bigint): readonly Item[] {
  const { batch, queries, keys, keyStep = keys, heads, headSize, hasLengths, packedTokens } = problem;
  const { valueStep = heads * headSize } = problem;
  const integers = (name: IndexName, bytes: 4 | 8, index: number) => {
    const view = bytesAt(address(name) + BigInt(bytes * index), bytes);
    const data = new DataView(view.buffer, view.byteOffset, bytes);
    return bytes === 4 ? data.getInt32(0, true) : Number(data.getBigInt64(0, true));
  };
  return Array.from({ length: batch }, (_, i): Item => {
    if (packedTokens === undefined)
      return {
        queries: hasLengths ? integers('queryLengths', 4, i) : queries,
        keys: hasLengths ? integers('keyLengths', 4, i) : keys,
        queryStart: i * queries * heads * headSize,
        keyStart: i * keyStep * heads * headSize,
        valueStart: i * keyStep * valueStep,
        statistic: (query, head) => (i * heads + head) * queries + query,
        problem,
      };
    const length = integers('queryLengths', 4, i);
    const [start, statistics] = [integers('tokenOffsets', 8, i), integers('statisticOffsets', 8, i)];
    return {
      queries: length,
      keys: length,
      queryStart: start,
      keyStart: start,
      valueStart: start,
      statistic: (query, head) => statistics + query * heads + head,
      problem,
    };
  });
}

function plannedForward(problem: AttentionProblem) {
  return planned<ForwardNames>(problem, ['q', 'k', 'v', 'y', 'statistics'], (items, address) => {
    for (const item of items) {
      if (item.queries === 0) continue;
      const [q, k, v] = [tokens(item, 'q', address), tokens(item, 'k', address), tokens(item, 'v', address)];
      const statistics = { shape: [1, problem.heads, item.queries], dtype: 'f32' as const };
      const [y, logSums] = attention([q, k, v], problem, [q, statistics]);
      write(startOf(item, 'y', address), { shape: q.shape, dtype: 'bf16' }, y);
      eachStatistic(item, (place, index) => {
        write(address('statistics') + BigInt(4 * place), scalar, Float64Array.of(at(logSums, index)));
      });
    }
  });
}

function plannedBackward(problem: AttentionProblem) {
  const names = ['q', 'k', 'v', 'y', 'statistics', 'dy', 'dq', 'dk', 'dv', 'total', 'dqSum'] as const;
  return planned<BackwardNames>(problem, names, (items, address) => {
    for (const item of items) {
      if (item.queries === 0) continue;
      const of = (name: TokenName) => tokens(item, name, address);
      const logSums: Values = {
        shape: [1, problem.heads, item.queries],
        dtype: 'f32',
        data: new Float64Array(problem.heads * item.queries),
      };
      eachStatistic(item, (place, index) => {
        logSums.data[index] = at(read(address('statistics') + BigInt(4 * place), scalar).data, 0);
      });
      const operands = [of('q'), of('k'), of('v'), of('y'), logSums, of('dy')] as const;
      const found = attentionGradient(operands, problem);
      (['dq', 'dk', 'dv'] as const).forEach((name, index) => {
        const shape = of(name).shape;
        write(startOf(item, name, address), { shape, dtype: 'bf16' }, at(found, index));
      });
    }
  });
}

type TokenName = Exclude<BackwardNames, 'statistics' | 'total' | 'dqSum'>;
const scalar: TensorType = { shape: [1], dtype: 'f32' };

function isOfKeys(name: TokenName): boolean {
  return ['k', 'v', 'dk', 'dv'].includes(name);
}

function startOf(item: Item, name: TokenName, address: (name: never) => bigint): bigint {
  const ofKeys = name === 'v' ? item.valueStart : item.keyStart;
  return address(name as never) + BigInt(2 * (isOfKeys(name) ? ofKeys : item.queryStart));
}

function tokens(item: Item, name: TokenName, address: (name: never) => bigint): Values {
  const { heads, headSize } = item.problem;
  const count = isOfKeys(name) ? item.keys : item.queries;
  const shape = [1, count, heads, headSize];
  const { valueStep = heads * headSize } = item.problem;
  const step = name === 'v' ? valueStep : heads * headSize;
  const start = startOf(item, name, address);
  const data = Array.from({ length: count }, (_, token) => {
    const type = { shape: [heads * headSize], dtype: 'bf16' } as const;
    return [...read(start + BigInt(2 * token * step), type).data];
  });
  return { shape, dtype: 'bf16', data: Float64Array.from(data.flat()) };
}

function eachStatistic(item: Item, visit: (place: number, index: number) => void): void {
  for (let head = 0; head < item.problem.heads; head++)
    for (let query = 0; query < item.queries; query++)
      visit(item.statistic(query, head), head * item.queries + query);
}
