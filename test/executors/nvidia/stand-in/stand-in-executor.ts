import { NativeMemory } from '../../../../src/executors/nvidia/bindings/native.ts';
import { type CollectiveNode, isCollective } from '../../../../src/executors/nvidia/collectives.ts';
import type { Location } from '../../../../src/executors/nvidia/donation.ts';
import {
  type LibraryStage,
  operandsOfCall,
  type Partition,
  resultsOfCall,
  type Stage,
  type TakesTail,
} from '../../../../src/executors/nvidia/kernel.ts';
import type { LibraryCall } from '../../../../src/executors/nvidia/library/library-call.ts';
import { gemmOfTail } from '../../../../src/executors/nvidia/library/matmul.ts';
import { narrowed } from '../../../../src/executors/nvidia/narrowing.ts';
import {
  bytesOfType,
  type Program,
  planProgram,
  type Step,
  valuesInDonatedMemory,
} from '../../../../src/executors/nvidia/program.ts';
import { quantised } from '../../../../src/executors/nvidia/quantising.ts';
import { ownStorage, type Storage } from '../../../../src/executors/nvidia/storage.ts';
import { nodesOfTail } from '../../../../src/executors/nvidia/tails.ts';
import { kernels, type Kernel as ReferenceKernel } from '../../../../src/executors/reference/kernels.ts';
import { fromHost, rounded, toHost } from '../../../../src/executors/reference/values.ts';
import type { DType } from '../../../../src/tensor/dtype.ts';
import { makeGraph } from '../../../../src/tensor/graph.ts';
import {
  bytesOf,
  fromFloat32,
  type HostTensor,
  hostTensor,
  toFloat32,
  zeros,
} from '../../../../src/tensor/host-tensor.ts';
import { inlineCalls } from '../../../../src/tensor/rewrite.ts';
import { at, elementCount, type TensorType } from '../../../../src/tensor/shape.ts';
import {
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../../../src/tensor/tensor.ts';
import type { Op } from '../../../../src/tensor/vocabulary.ts';
import type { CpuKernels } from './compile.ts';

/** How kernels are made, as the executor is told. */
export interface Generator {
  readonly partition: Partition;
  /** Rewrites a graph before it is cut; default: not at all. */
  readonly prepare?: (graph: Graph) => Graph;
  /** Whether the precision is `bf16`; default: all is stored as the graph says. */
  readonly isNarrow?: boolean;
  /** Products that multiply f8e4m3 then; default: none. */
  readonly quantises?: Parameters<typeof quantised>[1];
}

/** A graph planned as the NVIDIA executor plans it, library nodes left to the reference executor's kernels. */
export interface StandInProgram {
  readonly program: Program;
  readonly stages: readonly Stage[];
  readonly storage: Storage;
}

const libraryOps: readonly Op[] = [
  'matmul',
  'convolution',
  'convolutionInputGradient',
  'convolutionKernelGradient',
];

/** As cuBLASLt does wherever it has a form for a tail. */
const takesTail: TakesTail = (tail, storage) => gemmOfTail(tail, storage) !== undefined;

/** What other processes do while a program runs. */
export interface Others {
  /** What sums over processes give, of all that start together. */
  readonly sums: (values: readonly HostTensor[]) => readonly HostTensor[];
  /** Whether all that is exchanged is read and written when it is waited for, rather than when it is started. */
  readonly isLate: boolean;
}

/**
 * Plans a graph.
 * @param donate inputs that the run consumes.
 * @param alsoLibrary operations taken from kernels.
 * @param bucketBytes what other processes exchange at once, if there are any.
 * @param lower what library nodes launch: nothing, unless the program is bound.
 * @param fixed inputs that stay the same from run to run.
 */
export function planStandIn(
  graph: Graph,
  generator: Generator,
  donate: readonly number[] = [],
  alsoLibrary: readonly Op[] = [],
  bucketBytes?: number,
  lower: (stage: LibraryStage, storage: Storage) => LibraryCall = () => ({
    scratch: [],
    kernels: [],
    bind: () => [],
  }),
  fixed: readonly number[] = [],
): StandInProgram {
  const takes = (node: Node) =>
    libraryOps.includes(node.op) ||
    alsoLibrary.includes(node.op) ||
    (bucketBytes !== undefined && isCollective(node));
  const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
  const prepared = generator.prepare?.(inlined) ?? inlined;
  const scaled = quantised(prepared, generator.quantises ?? (() => false));
  const { graph: planned, storage } = generator.isNarrow
    ? narrowed(scaled.graph, takes, takesTail, scaled.products)
    : { graph: prepared, storage: ownStorage };
  const still = new Set(fixed.map((index) => at(planned.inputs, index).node));
  const isFixed = (node: Node) => still.has(node);
  const stages = generator.partition(planned, { takes, takesTail, storage, isFixed });
  const lowered = (stage: LibraryStage) => lower(stage, storage);
  const program = planProgram(planned, stages, donate, lowered, storage, bucketBytes, fixed);
  return { program, stages, storage };
}

/** Kernels of a planned graph. */
export function kernelsOf({ program }: StandInProgram) {
  const own = program.steps.flatMap(({ work }) => (work.kind === 'kernel' ? [work.kernel] : []));
  return [...program.prepared.map(({ kernel }) => kernel), ...own];
}

/**
 * Runs a planned graph in memory laid out as the plan says, every result poisoned before it is made.
 * @param others what collectives do.
 * @throws Error when a step writes over what it reads, other than where its kernel allows it.
 */
export function runStandIn(
  { program, stages, storage }: StandInProgram,
  compiled: CpuKernels,
  inputs: readonly HostTensor[],
  { sums, isLate }: Others = { sums: (values) => values, isLate: false },
): HostTensor[] {
  const memory = new Memory(program, inputs);
  const exchange = ({ reads, writes }: Step, nodes: readonly CollectiveNode[]) => {
    const given = nodes.map(({ operands }, index) => memory.read(at(reads, index), operands[0]));
    sums(given).forEach((result, index) => {
      memory.bytesOf({ kind: 'value', value: at(writes, index) }).set(bytesOf(result));
    });
  };
  const started = new Map<readonly CollectiveNode[], Step>();
  const library = stages.flatMap((stage) =>
    stage.kind === 'library' && !isCollective(stage.node) ? [stage] : [],
  );
  const written = new Set<number>();
  for (const { kernel, reads, writes } of program.prepared) {
    for (const value of writes) written.add(value);
    const values = writes.map((value): Location => ({ kind: 'value', value }));
    compiled.run(
      kernel,
      [...reads, ...values].map((location) => memory.addressOf(location)),
    );
  }
  for (const step of program.steps) {
    memory.check(step, written);
    for (const value of step.writes) {
      if (!written.has(value) && !memory.isSharedWithRead(step, value)) memory.fill(value, 0xff);
      written.add(value);
    }
    const { work } = step;
    if (work.kind === 'kernel') {
      const values = step.writes.map((value): Location => ({ kind: 'value', value }));
      compiled.run(
        work.kernel,
        [...step.reads, ...values].map((location) => memory.addressOf(location)),
      );
    } else if (work.kind === 'start') {
      if (isLate) started.set(work.nodes, step);
      else exchange(step, work.nodes);
    } else if (work.kind === 'wait') {
      const late = started.get(work.nodes);
      if (late !== undefined) exchange(late, work.nodes);
    } else {
      const stage = library.shift();
      if (stage === undefined) throw new Error('a library step has no stage');
      computeStage(
        stage,
        step.reads.map((read) => memory.bytesOf(read)),
        step.writes.map((value) => memory.bytesOf({ kind: 'value', value })),
        storage,
      );
    }
  }
  return program.graph.outputs.map((output, index) =>
    memory.read(at(program.outputs, index).location, output),
  );
}

/** Computes what a library does on memory as the reference executor does. */
export function computeStage(
  stage: LibraryStage,
  operands: readonly Uint8Array[],
  results: readonly Uint8Array[],
  storage: Storage,
): void {
  const given = operandsOfCall(stage).map((operand, index) => {
    const tensor = zeros(storage(operand), operand.shape);
    bytesOf(tensor).set(at(operands, index));
    return stored(tensor, operand.dtype);
  });
  const made = resultsOfCall(stage);
  computeCall(stage, given).forEach((result, index) => {
    at(results, index).set(bytesOf(stored(result, storage(at(made, index)))));
  });
}

/** A tensor in the dtype that it has in memory, or widened from it. */
function stored(tensor: HostTensor, dtype: DType): HostTensor {
  return tensor.dtype === dtype ? tensor : fromFloat32(dtype as 'bf16', tensor.shape, toFloat32(tensor));
}

/** What a library call makes of its operands: a node, with what is cut out for it, and what its tail does to the result. */
function computeCall(stage: LibraryStage, operands: readonly HostTensor[]): HostTensor[] {
  const made = new Map<Tensor, HostTensor>();
  operandsOfCall(stage).forEach((operand, index) => {
    made.set(operand, at(operands, index));
  });
  const computed = (tensor: Tensor): HostTensor => {
    const value = made.get(tensor);
    if (value !== undefined) return value;
    const { node } = tensor;
    if (stage.cut === undefined || (node.op !== 'slice' && node.op !== 'reshape'))
      throw new Error(`${node.op} was not computed`);
    return at(compute(node as NodeOf<'slice'>, operandsOf(node).map(computed)), 0);
  };
  for (const node of stage.tail === undefined ? [stage.node] : nodesOfTail(stage.tail)) {
    const found = compute(node as NodeOf<'matmul'>, operandsOf(node).map(computed));
    resultsOf(node).forEach((result, index) => {
      made.set(result, at(found, index));
    });
  }
  return resultsOfCall(stage).map(computed);
}

function compute<K extends 'matmul' | 'slice'>(
  node: NodeOf<K>,
  operands: readonly HostTensor[],
): HostTensor[] {
  const kernel = kernels[node.op] as ReferenceKernel<K>;
  const arrays = kernel(
    operands.map(fromHost) as unknown as Parameters<ReferenceKernel<K>>[0],
    node.attributes,
    node.results,
  );
  return arrays.map((data, index) => toHost(rounded(at(node.results, index), data)));
}

/** One block of memory: inputs, constants, the arena. Every piece starts at a multiple of 256 bytes. */
class Memory {
  private readonly native: NativeMemory;
  private readonly origin: number;
  private readonly starts = new Map<string, number>();
  private readonly program: Program;
  private readonly moved: ReadonlyMap<number, number>;
  private readonly arena: number;

  constructor(program: Program, inputs: readonly HostTensor[]) {
    this.program = program;
    this.moved = valuesInDonatedMemory(program);
    let end = 0;
    const take = (bytes: number) => {
      const start = end;
      end += Math.ceil(Math.max(bytes, 1) / 256) * 256;
      return start;
    };
    inputs.forEach((tensor, index) => {
      this.starts.set(`input${index}`, take(bytesOf(tensor).length));
    });
    for (const { value } of program.constants)
      this.starts.set(`value${value}`, take(at(program.bytes, value)));
    for (const value of program.prepared.flatMap(({ writes }) => writes))
      this.starts.set(`value${value}`, take(at(program.bytes, value)));
    this.arena = take(program.arenaBytes);
    this.native = new NativeMemory(end + 512);
    this.native.bytes.fill(0xff);
    this.origin = Number((256n - (this.native.address % 256n)) % 256n);
    inputs.forEach((tensor, index) => {
      this.bytesOf({ kind: 'input', index }).set(bytesOf(tensor));
    });
    for (const { value, node } of program.constants)
      this.bytesOf({ kind: 'value', value }).set(bytesOf(constantTensor(node)));
  }

  addressOf(location: Location): bigint {
    return this.native.address + BigInt(this.start(location));
  }

  bytesOf(location: Location): Uint8Array {
    const start = this.start(location);
    return this.native.bytes.subarray(start, start + this.size(location));
  }

  read(location: Location, { shape, dtype }: TensorType): HostTensor {
    const tensor = zeros(dtype, shape);
    bytesOf(tensor).set(this.bytesOf(location));
    return tensor;
  }

  fill(value: number, byte: number): void {
    this.bytesOf({ kind: 'value', value }).fill(byte);
  }

  /** Whether a value lies where something is that its step reads. */
  isSharedWithRead({ reads }: Step, value: number): boolean {
    return reads.some((read) => this.overlap(read, { kind: 'value', value }));
  }

  check({ name, reads, writes, inPlace }: Step, written: ReadonlySet<number>): void {
    writes.forEach((value, write) => {
      const target: Location = { kind: 'value', value };
      reads.forEach((read, index) => {
        const allowed = inPlace.some(([from, to]) => from === index && to === write);
        if (this.overlap(read, target) && !(allowed && this.start(read) === this.start(target)))
          throw new Error(`${name}: result ${write} lies on operand ${index}`);
      });
      writes.forEach((other, index) => {
        if (index < write && this.overlap({ kind: 'value', value: other }, target))
          throw new Error(`${name}: results ${index} and ${write} overlap`);
      });
    });
    for (const read of reads)
      if (read.kind === 'value' && !written.has(read.value) && !this.starts.has(`value${read.value}`))
        throw new Error(`${name} reads what nothing made`);
  }

  private overlap(a: Location, b: Location): boolean {
    const [p, q] = [this.start(a), this.start(b)];
    return p < q + this.size(b) && q < p + this.size(a);
  }

  private size(location: Location): number {
    if (location.kind === 'value') return at(this.program.bytes, location.value);
    return bytesOfType(at(this.program.graph.inputs, location.index));
  }

  private start(location: Location): number {
    if (location.kind === 'input') return this.origin + (this.starts.get(`input${location.index}`) ?? 0);
    const { value } = location;
    const input = this.moved.get(value);
    if (input !== undefined) return this.start({ kind: 'input', index: input });
    return this.origin + (this.starts.get(`value${value}`) ?? this.arena + at(this.program.offsets, value));
  }
}

/** A constant's values. */
export function constantTensor({ attributes: { shape, dtype, values } }: NodeOf<'constant'>): HostTensor {
  const count = elementCount(shape);
  const all = values.length === 1 ? new Array<number>(count).fill(at(values, 0)) : values;
  if (dtype === 'i32') return hostTensor(dtype, shape, Int32Array.from(all));
  if (dtype === 'bool') return hostTensor(dtype, shape, Uint8Array.from(all));
  return fromFloat32(dtype as 'f32', shape, Float32Array.from(all));
}
