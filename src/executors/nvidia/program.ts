import { bytesPerElement } from '../../tensor/dtype.ts';
import { at, elementCount, formatType, type TensorType } from '../../tensor/shape.ts';
import type { Graph, NodeOf, Tensor } from '../../tensor/tensor.ts';
import { type CollectiveNode, inPlaceSums } from './collectives.ts';
import { type Donation, type Location, locationOf, planDonations, type StepAccess } from './donation.ts';
import { type Kernel, type LibraryStage, operandsOfCall, resultsOfCall, type Stage } from './kernel.ts';
import type { LibraryCall } from './library/library-call.ts';
import { planMemory } from './memory-plan.ts';
import { type Buckets, bucketsIn, defaultBucketBytes, scheduleCollectives } from './overlap.ts';
import type { PreparedStep } from './prepared.ts';
import { ownStorage, type Storage, storedBytes } from './storage.ts';

/** One step of a program: what it launches, and where its operands, results and scratch are. */
export interface Step extends StepAccess {
  /** What it computes, for profiles: kernel or operation, and the types that go in and come out. */
  readonly name: string;
  readonly work:
    | { readonly kind: 'kernel'; readonly kernel: Kernel }
    | { readonly kind: 'library'; readonly call: LibraryCall }
    /** Collectives that run beside the next steps, one for each operand and result. */
    | { readonly kind: 'start'; readonly nodes: readonly CollectiveNode[] }
    /** The end of those that were started with the same nodes: until then it reads their operands and results. */
    | { readonly kind: 'wait'; readonly nodes: readonly CollectiveNode[] };
  /** Values that only this step uses. */
  readonly scratch: readonly number[];
}

/** A constant's values, which stay in memory of their own. */
export interface ProgramConstant {
  readonly value: number;
  readonly node: NodeOf<'constant'>;
}

/** A graph as steps over memory that is planned. */
export interface Program {
  readonly graph: Graph;
  readonly steps: readonly Step[];
  /** Inputs that stay the same from run to run, and what is computed of them alone, once for each set of buffers. */
  readonly fixed: ReadonlySet<number>;
  readonly prepared: readonly PreparedStep[];
  readonly constants: readonly ProgramConstant[];
  /** Offset of each value in the arena; those of constants, prepared values and donated memory are not used. */
  readonly offsets: readonly number[];
  readonly arenaBytes: number;
  /** Bytes of each value. */
  readonly bytes: readonly number[];
  readonly outputs: readonly { readonly location: Location; readonly bytes: number }[];
  /** By donated input, which output takes its memory. */
  readonly donations: ReadonlyMap<number, Donation>;
}

/** What a program exchanges with other processes at once. */
export function bucketsOfProgram({ steps }: Program): Buckets {
  return bucketsIn(steps.flatMap(({ work }) => (work.kind === 'start' ? [work.nodes] : [])));
}

/** Whether other processes run a program at the same time, since it exchanges tensors with them. */
export function isShared({ steps }: Program): boolean {
  return steps.some(({ work }) => work.kind === 'start');
}

/** Bytes of a tensor in the GPU's memory. */
export function bytesOfType({ shape, dtype }: TensorType): number {
  return elementCount(shape) * bytesPerElement(dtype);
}

/**
 * Plans the memory of a graph cut into stages.
 * @param lower how a library node is computed.
 * @param storage how tensors lie in memory; graph inputs and outputs in their own dtype.
 * @param buckets what processes exchange at once: {@link scheduleCollectives}.
 * @param fixed inputs that stay the same from run to run; of no effect where processes exchange.
 */
export function planProgram(
  graph: Graph,
  stages: readonly Stage[],
  donated: readonly number[],
  lower: (stage: LibraryStage) => LibraryCall,
  storage: Storage = ownStorage,
  buckets: number | Buckets = defaultBucketBytes,
  fixed: readonly number[] = [],
): Program {
  const locations = new Map<Tensor, Location>();
  graph.inputs.forEach((input, index) => {
    locations.set(input, { kind: 'input', index });
  });
  const bytes: number[] = [];
  const newValue = (size: number): number => bytes.push(size) - 1;
  const newTensor = (tensor: Tensor): number => {
    const value = newValue(storedBytes(tensor, storage));
    locations.set(tensor, { kind: 'value', value });
    return value;
  };
  /** The value of a tensor that several kernels may write a part of. */
  const valueMade = (tensor: Tensor): number => {
    const known = locations.get(tensor);
    return known?.kind === 'value' ? known.value : newTensor(tensor);
  };
  const read = (tensors: readonly Tensor[]) => tensors.map((tensor) => locationOf(locations, tensor));

  const all: Step[] = [];
  const constants: ProgramConstant[] = [];
  const isInPlace = inPlaceSums(graph);
  for (const stage of scheduleCollectives(stages, buckets)) {
    switch (stage.kind) {
      case 'view':
        locations.set(stage.output, locationOf(locations, stage.input));
        break;
      case 'constant': {
        if (stage.node.op !== 'constant') throw new Error(`${stage.node.op} is no constant`);
        constants.push({ value: newTensor(stage.output), node: stage.node });
        break;
      }
      case 'kernel': {
        const { kernel } = stage;
        const reads = read(stage.inputs);
        const writes = stage.outputs.map(valueMade);
        const inPlace = kernel.inPlace ?? [];
        const name = stepName(kernel.name, stage.inputs, stage.outputs);
        all.push({ name, work: { kind: 'kernel', kernel }, reads, writes, inPlace, scratch: [] });
        break;
      }
      case 'library': {
        const call = lower(stage);
        const [operands, results] = [operandsOfCall(stage), resultsOfCall(stage)];
        const reads = read(operands);
        const writes = results.map(newTensor);
        const scratch = call.scratch.map(newValue);
        const name = stepName(callName(stage), operands, results);
        all.push({ name, work: { kind: 'library', call }, reads, writes, inPlace: [], scratch });
        break;
      }
      case 'start': {
        const { nodes } = stage;
        const operands = nodes.map((node) => node.operands[0]);
        const reads = read(operands);
        const writes = nodes.map((node, index) => {
          const result = at(node.results, 0);
          const from = at(reads, index);
          if (from.kind !== 'value' || !isInPlace(node)) return newTensor(result);
          locations.set(result, from);
          return from.value;
        });
        const inPlace = nodes.flatMap((node, index): (readonly [number, number])[] =>
          isInPlace(node) ? [[index, index]] : [],
        );
        const name = `${nodes.length} x ${at(nodes, 0).op}: ${formatType(at(operands, 0))} ...`;
        all.push({ name, work: { kind: 'start', nodes }, reads, writes, inPlace, scratch: [] });
        break;
      }
      case 'wait': {
        const { nodes } = stage;
        const reads = read(nodes.flatMap((node) => [node.operands[0], at(node.results, 0)]));
        const name = `wait for ${nodes.length} x ${at(nodes, 0).op}`;
        all.push({ name, work: { kind: 'wait', nodes }, reads, writes: [], inPlace: [], scratch: [] });
        break;
      }
    }
  }
  const outputs = graph.outputs.map((output) => ({
    location: locationOf(locations, output),
    bytes: bytesOfType(output),
  }));
  const split = apart(all, new Set(fixed.filter((index) => !donated.includes(index))));
  const { steps, prepared } = split;
  const donations = planDonations(donated, graph.inputs.map(bytesOfType), outputs, steps);
  const kept = [...constants.map(({ value }) => value), ...prepared.flatMap(({ writes }) => writes)];
  const { offsets, bytes: arenaBytes } = planArena(bytes, steps, outputs, kept, donations);
  return { graph, ...split, constants, offsets, arenaBytes, bytes, outputs, donations };
}

/** Kernels that read fixed inputs, or what such kernels make, and nothing else; and all other steps. */
function apart(
  all: readonly Step[],
  fixed: ReadonlySet<number>,
): Pick<Program, 'steps' | 'prepared' | 'fixed'> {
  const isShared = all.some(({ work }) => work.kind === 'start');
  if (fixed.size === 0 || isShared) return { steps: all, prepared: [], fixed: new Set() };
  const makers = Map.groupBy(
    all.flatMap(({ writes }) => writes),
    (value) => value,
  );
  const made = new Set<number>();
  const [steps, prepared]: [Step[], PreparedStep[]] = [[], []];
  for (const step of all) {
    const { work, reads, writes, inPlace } = step;
    const isKnown = (read: Location) =>
      read.kind === 'input' ? fixed.has(read.index) : made.has(read.value);
    const isWhole = writes.every((value) => makers.get(value)?.length === 1);
    if (work.kind === 'kernel' && reads.length > 0 && reads.every(isKnown) && isWhole) {
      for (const value of writes) made.add(value);
      prepared.push({ kernel: work.kernel, reads, writes, inPlace });
    } else steps.push(step);
  }
  return { steps, prepared, fixed };
}

/** `matmul`, or with its tail `matmul+bias+gelu`. */
function callName({ node, tail }: LibraryStage): string {
  return [node.op, ...(tail ? ['bias'] : []), ...(tail?.gelu ? ['gelu'] : [])].join('+');
}

function stepName(what: string, inputs: readonly Tensor[], outputs: readonly Tensor[]): string {
  return `${what}: ${inputs.map(formatType).join(' ')} -> ${outputs.map(formatType).join(' ')}`;
}

/** Values that are made in donated memory, and the inputs whose memory it is. */
export function valuesInDonatedMemory({ donations, outputs }: Pick<Program, 'donations' | 'outputs'>) {
  const found = new Map<number, number>();
  for (const [input, { output, how }] of donations) {
    const { location } = at(outputs, output);
    if (how === 'inPlace' && location.kind === 'value') found.set(location.value, input);
  }
  return found;
}

function planArena(
  bytes: readonly number[],
  steps: readonly Step[],
  outputs: Program['outputs'],
  kept: readonly number[],
  donations: Program['donations'],
) {
  const first = new Array<number>(bytes.length).fill(steps.length);
  const last = new Array<number>(bytes.length).fill(0);
  const use = (location: Location, step: number) => {
    if (location.kind === 'value') last[location.value] = step;
  };
  steps.forEach(({ reads, writes, scratch }, step) => {
    for (const value of [...writes, ...scratch]) {
      first[value] = Math.min(at(first, value), step);
      last[value] = step;
    }
    for (const location of reads) use(location, step);
  });
  for (const { location } of outputs) use(location, steps.length);
  const elsewhere = new Set([...kept, ...valuesInDonatedMemory({ donations, outputs }).keys()]);
  return planMemory(
    bytes.map((size, value) => ({
      bytes: elsewhere.has(value) ? 0 : size,
      first: at(first, value),
      last: at(last, value),
    })),
  );
}
