import { bytesPerElement } from '../../tensor/dtype.ts';
import { elementCount, type TensorType } from '../../tensor/shape.ts';
import type { Tensor } from '../../tensor/tensor.ts';
import { type CollectiveNode, isCollective } from './collectives.ts';
import { operandsOfCall, resultsOfCall, type Stage } from './kernel.ts';

/**
 * A stage of a program. Collectives run beside the stages between the one that starts them and the one that waits for
 * them, which has the same `nodes`.
 */
export type ProgramStage =
  | Stage
  | { readonly kind: 'start' | 'wait'; readonly nodes: readonly CollectiveNode[] };

/**
 * What is exchanged at once, in bytes, unless a single tensor is larger. Less costs the time that starting takes, more
 * begins later and leaves more to be waited for when the backward pass is done.
 */
export const defaultBucketBytes = 32 << 20;

/** How many buckets may have started after one that is not waited for yet, where there are tensors to be scattered. */
const mostUnderWay = 4;

/** Which collectives start together, and in which order: their numbers in the order of the graph. */
export type Buckets = readonly (readonly number[])[];

/**
 * Lets collectives run beside the computation. They come in buckets, in the order in which their operands are made, not
 * in which the graph names them: a bucket starts right after the stage that makes its last operand, and what first reads
 * one of its results waits for it. Processes have to start the same buckets in the same order.
 * @param chosen most bytes of a bucket, or the buckets of a process whose stages may be others, as what is fused there may be.
 */
export function scheduleCollectives(
  stages: readonly Stage[],
  chosen: number | Buckets,
): readonly ProgramStage[] {
  const starts = new Map<number, ProgramStage[]>();
  const waits = new Map<number, ProgramStage[]>();
  const buckets = placed(bucketsOf(collectivesOf(stages), chosen));
  for (const [index, { nodes, start, read }] of buckets.entries()) {
    const next = buckets[index + mostUnderWay]?.start ?? stages.length;
    // What is scattered is not needed any more: waiting for it frees its memory.
    const wait = nodes.some(({ op }) => op === 'reduceScatter') ? Math.min(read, next + 1) : read;
    starts.set(start, [...(starts.get(start) ?? []), { kind: 'start', nodes }]);
    waits.set(wait, [...(waits.get(wait) ?? []), { kind: 'wait', nodes }]);
  }
  const around = stages.flatMap((stage, position) => [
    ...(waits.get(position) ?? []),
    ...(collectiveOf(stage) === undefined ? [stage] : []),
    ...(starts.get(position) ?? []),
  ]);
  return [...(starts.get(beginning) ?? []), ...around, ...(waits.get(stages.length) ?? [])];
}

/** The buckets of a schedule. */
export function bucketsIn(startedTogether: readonly (readonly CollectiveNode[])[]): Buckets {
  const numbers = new Map(inGraphOrder(startedTogether.flat()).map((node, number) => [node, number]));
  return startedTogether.map((nodes) => nodes.map((node) => numbers.get(node) ?? 0));
}

/** Nodes as they are numbered: in the order in which they were made, which is the same in every process. */
function inGraphOrder(nodes: readonly CollectiveNode[]): CollectiveNode[] {
  return [...nodes].sort((a, b) => a.id - b.id);
}

/** The position of what is there before the first stage. */
const beginning = -1;

/** A collective and the positions, in the list of stages, between which it may run. */
interface Collective {
  readonly node: CollectiveNode;
  readonly bytes: number;
  /** Of the stage that makes its operand. */
  readonly ready: number;
  /** Of the first stage that knows its result, be it as a view: it must have started before. */
  named: number;
  /** The same, or the `ready` of another collective that takes its result: that must start after it. */
  known: number;
  /** Of the first stage that reads its result from memory: it must be done. */
  read: number;
}

/** The collectives of a list of stages, in the order in which their operands are made. */
function collectivesOf(stages: readonly Stage[]): readonly Collective[] {
  const found: Collective[] = [];
  const made = new Map<Tensor, number>();
  /** Whose result a tensor is, or a view of. */
  const makers = new Map<Tensor, Collective>();
  for (const [position, stage] of stages.entries()) {
    const node = collectiveOf(stage);
    const reads = readsOf(stage);
    const here =
      node === undefined ? position : Math.max(beginning, ...reads.map((one) => made.get(one) ?? beginning));
    for (const maker of reads.map((one) => makers.get(one)).filter((one) => one !== undefined)) {
      maker.known = Math.min(maker.known, here);
      if (node !== undefined) continue;
      maker.named = Math.min(maker.named, position);
      if (stage.kind !== 'view') maker.read = Math.min(maker.read, position);
    }
    const end = stages.length;
    const own = node && { node, bytes: largest(node), ready: here, named: end, known: end, read: end };
    if (own !== undefined) found.push(own);
    const maker = own ?? (stage.kind === 'view' ? makers.get(stage.input) : undefined);
    for (const tensor of writesOf(stage)) {
      made.set(tensor, here);
      if (maker !== undefined) makers.set(tensor, maker);
    }
  }
  return found.sort((a, b) => a.ready - b.ready);
}

/** Collectives that start together. */
function bucketsOf(collectives: readonly Collective[], chosen: number | Buckets): readonly Collective[][] {
  if (typeof chosen === 'number') return fullBuckets(collectives, chosen);
  const byNode = new Map(collectives.map((one) => [one.node, one]));
  const ordered = inGraphOrder([...byNode.keys()]).map((node) => byNode.get(node));
  const buckets = chosen.map((bucket) => bucket.flatMap((number) => ordered[number] ?? []));
  const isComplete =
    new Set(buckets.flat()).size === collectives.length && chosen.flat().length === collectives.length;
  if (!isComplete) throw new Error('processes compile different graphs: they exchange different tensors');
  return buckets;
}

/** As many as fit in a bucket, as long as none is known before the last one is ready. */
function fullBuckets(collectives: readonly Collective[], bucketBytes: number): readonly Collective[][] {
  const buckets: Collective[][] = [];
  let [bytes, known] = [Number.POSITIVE_INFINITY, 0];
  for (const one of collectives) {
    if (bytes + one.bytes > bucketBytes || one.ready >= known) {
      buckets.push([]);
      [bytes, known] = [0, Number.POSITIVE_INFINITY];
    }
    buckets.at(-1)?.push(one);
    bytes += one.bytes;
    known = Math.min(known, one.known);
  }
  return buckets;
}

/** Where buckets start and have to be done, one after the other. */
function placed(buckets: readonly Collective[][]) {
  let start = beginning;
  return buckets.map((bucket) => {
    start = Math.max(start, ...bucket.map(({ ready }) => ready));
    const own = start;
    if (bucket.some(({ named }) => named <= own))
      throw new Error('processes order their work differently: a result is needed before it is exchanged');
    return {
      nodes: inGraphOrder(bucket.map(({ node }) => node)),
      start: own,
      read: Math.min(...bucket.map(({ read }) => read)),
    };
  });
}

function collectiveOf(stage: Stage): CollectiveNode | undefined {
  return stage.kind === 'library' && isCollective(stage.node) ? stage.node : undefined;
}

/** Bytes of a collective's operand or result, whichever has more. */
function largest(node: CollectiveNode): number {
  const bytes = ({ shape, dtype }: TensorType) => elementCount(shape) * bytesPerElement(dtype);
  return Math.max(bytes(node.operands[0]), ...node.results.map(bytes));
}

function readsOf(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.inputs;
    case 'library':
      return operandsOfCall(stage);
    case 'view':
      return [stage.input];
    case 'constant':
      return [];
  }
}

function writesOf(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.outputs;
    case 'library':
      return resultsOfCall(stage);
    case 'view':
    case 'constant':
      return [stage.output];
  }
}
