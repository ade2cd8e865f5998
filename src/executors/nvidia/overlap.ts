import { bytesPerElement } from '../../tensor/dtype.ts';
import { TensorMap } from '../../tensor/rewrite.ts';
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

/** Buckets of tensors to be scattered that may be under way at the same time. */
const mostUnderWay = 4;

/**
 * Lets collectives run beside the computation. They come in buckets, in the order in which their operands are made, not
 * in which the graph names them: a bucket starts right after the stage that makes its last operand, and what first reads
 * one of its results waits for it. Processes that run the same graph thus start the same buckets in the same order.
 */
export function scheduleCollectives(stages: readonly Stage[], bucketBytes: number): readonly ProgramStage[] {
  const starts = new Map<number, ProgramStage[]>();
  const waits = new Map<number, ProgramStage[]>();
  const buckets = bucketsOf(collectivesOf(stages), bucketBytes).map((bucket) => ({
    nodes: bucket.map(({ node }) => node),
    start: Math.max(...bucket.map(({ ready }) => ready)),
    read: Math.min(stages.length, ...bucket.map(({ read }) => read)),
  }));
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

/** The position of what is there before the first stage. */
const beginning = -1;

/** A collective and the positions, in the list of stages, between which it may run. */
interface Collective {
  readonly node: CollectiveNode;
  readonly bytes: number;
  /** Of the stage that makes its operand. */
  readonly ready: number;
  /** Of the first stage that knows its result, be it as a view or as another collective's operand: it must have started. */
  known: number;
  /** Of the first stage that reads its result from memory: it must be done. */
  read: number;
}

/** The collectives of a list of stages, in the order in which their operands are made. */
function collectivesOf(stages: readonly Stage[]): readonly Collective[] {
  const found: Collective[] = [];
  const made = new TensorMap<number>();
  /** Whose result a tensor is, or a view of. */
  const makers = new TensorMap<Collective>();
  for (const [position, stage] of stages.entries()) {
    const node = collectiveOf(stage);
    const reads = readsOf(stage);
    const here =
      node === undefined ? position : Math.max(beginning, ...reads.map((one) => made.get(one) ?? beginning));
    for (const maker of reads.map((one) => makers.get(one)).filter((one) => one !== undefined)) {
      maker.known = Math.min(maker.known, here);
      if (node === undefined && stage.kind !== 'view') maker.read = Math.min(maker.read, position);
    }
    const own = node && {
      node,
      bytes: largest(node),
      ready: here,
      known: stages.length,
      read: stages.length,
    };
    if (own !== undefined) found.push(own);
    const maker = own ?? (stage.kind === 'view' ? makers.get(stage.input) : undefined);
    for (const tensor of writesOf(stage)) {
      made.set(tensor, here);
      if (maker !== undefined) makers.set(tensor, maker);
    }
  }
  return found.sort((a, b) => a.ready - b.ready);
}

/** Collectives that start together: as many as fit, as long as none is known before the last one is ready. */
function bucketsOf(collectives: readonly Collective[], bucketBytes: number): readonly Collective[][] {
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
