import { elementCount } from '../../../tensor/shape.ts';
import {
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  resultsOf,
  type Tensor,
} from '../../../tensor/tensor.ts';
import { type Cut, cutOf, valuesOperand } from '../cuts.ts';
import {
  operandsOfCall,
  type Partition,
  type PartitionPolicy,
  resultsOfCall,
  type Stage,
} from '../kernel.ts';
import { isCopy } from '../narrowing.ts';
import { resultOf } from '../plain/expression.ts';
import { constantsInMemory, contextOf, isViewOfMemory, stagesOf } from '../plain/partition.ts';
import { ownStorage } from '../storage.ts';
import { nodesOfTail, resultsOfTail, type Tail, tailsOf } from '../tails.ts';
import { copyStages } from './copies.ts';
import type { GroupWork } from './group-kernel.ts';
import { Grouping, type Item } from './grouping.ts';
import { KnownGroups } from './known-groups.ts';
import { Structures } from './structures.ts';
import { totalStages } from './totals.ts';
import { type FusionContext, unitsOf } from './units.ts';

/**
 * As few passes over memory as there can be: chains of elementwise operations, norms, softmax and sums over the same
 * rows are one kernel each, and what a library does to a product as it writes it is its part. What none of these computes
 * is left to a kernel for each node, as in `plain/`.
 */
export const fusedPartition: Partition = (graph, policy) => {
  const tails = takenTails(graph, policy);
  const takes = (node: Node) => policy.takes(node) || tails.has(node);
  // A gelu whose sum is in memory too is as well computed from that as read.
  const isRepeated = (node: Node) => tails.get(node)?.keepsSum === true && node.op === 'gelu';
  const cuts = takenCuts(graph, policy, tails);
  const isRead = (user: Node, operand: Node) =>
    takes(user) &&
    !isRepeated(user) &&
    !(cuts.has(user) && operandsOf(user)[valuesOperand]?.node === operand);
  const plain = contextOf(graph, { ...policy, takes: (node) => takes(node) && !isRepeated(node) }, isRead);
  const isView = ({ node }: Tensor): boolean =>
    isViewOfMemory(node, plain) && !plain.isInlined(resultOf(node)) && !plain.isInlined(node.operands[0]);
  const context: FusionContext = { ...plain, isView };
  const structures = new Structures(context.storage);
  const groups = new KnownGroups(structures);
  const grouping = new Grouping(graph, context, structures, (item) =>
    groups.canFuse(workOf(item, context, () => true)),
  );
  const outputs = new Set(graph.outputs.map(({ node }) => node));
  const views = neededViews(graph, takes, context);
  const copies = graph.nodes.filter(isInputCopy);
  for (const stage of copyStages(copies, context, policy.isFixed))
    grouping.addStages([stage], inputsOf(stage), madeBy(stage));
  const inMemory = constantsInMemory(graph, takes);
  for (const node of graph.nodes) {
    if (node.op === 'input' || isInputCopy(node)) continue;
    if (node.op === 'constant') {
      if (node.attributes.values.length !== 1 || inMemory.has(node))
        grouping.addStages([{ kind: 'constant', node, output: resultOf(node) }], [], [resultOf(node)]);
      continue;
    }
    if (takes(node)) {
      const tail = tails.get(node);
      // Whatever reads what the call makes comes after the sum.
      if (tail !== undefined && node !== tail.sum.node) continue;
      const cut = cuts.get(node);
      const product = tail?.product ?? node;
      const stage = { kind: 'library', node: product, ...(tail && { tail }), ...(cut && { cut }) } as const;
      grouping.addStages([stage], operandsOfCall(stage), resultsOfCall(stage));
      continue;
    }
    if (resultsOf(node).every(context.isInlined)) continue;
    if (isView(resultOf(node))) {
      if (views.has(node)) grouping.addStages(stagesOf(node, plain), operandsOf(node), resultsOf(node));
      continue;
    }
    const units = unitsOf(node, context);
    if (units === undefined) {
      const stages = stagesOf(node, plain);
      grouping.addStages(stages, stages.flatMap(inputsOf), resultsOf(node));
    } else for (const unit of units) grouping.addUnit(unit);
  }
  return grouping.ordered().flatMap((item) => {
    if (item.units.length === 0) return item.stages;
    if (item.units[0]?.kind === 'total') return totalStages(item.units, context);
    const isNeeded = (tensor: Tensor) => outputs.has(tensor.node) || grouping.isReadElsewhere(tensor, item);
    return groups.stages(workOf(item, context, isNeeded));
  });
};

/** The tails that a library takes, by each of their nodes. */
function takenTails(graph: Graph, { takes, takesTail, storage = ownStorage }: PartitionPolicy) {
  if (takesTail === undefined) return new Map<Node, Tail>();
  const taken = tailsOf(graph, takes, storage).filter((tail) => {
    const kinds = new Set([tail.bias, ...resultsOfTail(tail)].map(storage));
    return kinds.size === 1 && takesTail(tail, storage);
  });
  return new Map(taken.flatMap((tail) => nodesOfTail(tail).map((node) => [node, tail] as const)));
}

/** The cuts, by the attention that reads them, of what libraries make in memory. */
function takenCuts(
  graph: Graph,
  { takes, storage = ownStorage }: PartitionPolicy,
  tails: ReadonlyMap<Node, Tail>,
): ReadonlyMap<Node, Cut> {
  const isMade = ({ node, index }: Tensor) => {
    const tail = tails.get(node);
    return tail === undefined
      ? takes(node) && index === 0
      : resultsOfTail(tail).some((made) => made.node === node);
  };
  return new Map(
    graph.nodes.filter(takes).flatMap((node) => {
      const cut = cutOf(node, storage);
      return cut !== undefined && isMade(cut.whole) ? [[node, cut] as const] : [];
    }),
  );
}

function isInputCopy(node: Node): node is NodeOf<'cast'> {
  return isCopy(node) && node.operands[0].node.op === 'input' && elementCount(node.operands[0].shape) > 0;
}

function madeBy(stage: Stage): readonly Tensor[] {
  return stage.kind === 'kernel' ? stage.outputs : [];
}

/** Views that something reads that is no fused kernel; those look through them. */
function neededViews(
  graph: Graph,
  takes: (node: Node) => boolean,
  context: FusionContext,
): ReadonlySet<Node> {
  const needed = new Set<Node>();
  const need = ({ node }: Tensor) => {
    if (node.results.length === 1 && context.isView(resultOf(node))) needed.add(node);
  };
  graph.outputs.forEach(need);
  for (const node of [...graph.nodes].reverse()) {
    if (node.op === 'input' || node.op === 'constant') continue;
    const isFused =
      !takes(node) && (resultsOf(node).every(context.isInlined) || context.isView(resultOf(node)));
    const isPlain = !isFused && (takes(node) || unitsOf(node, context) === undefined);
    if (isPlain || needed.has(node)) operandsOf(node).forEach(need);
    if (isPlain && !takes(node)) for (const stage of stagesOf(node, context)) inputsOf(stage).forEach(need);
  }
  return needed;
}

function inputsOf(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.inputs;
    case 'view':
      return [stage.input];
    default:
      return [];
  }
}

/** What the kernel of an item computes. */
function workOf(item: Item, context: FusionContext, isNeeded: (tensor: Tensor) => boolean): GroupWork {
  const computed = new Set<Node>(
    item.units.flatMap(({ kind, output }) => (kind === 'pointwise' ? [output.node] : [])),
  );
  return {
    space: item.space,
    reductions: item.units.flatMap(({ kind, output }) =>
      kind === 'row' ? [output.node as NodeOf<'sum' | 'max'>] : [],
    ),
    columns: item.units.flatMap(({ kind, output }) =>
      kind === 'column' ? [output.node as NodeOf<'sum'>] : [],
    ),
    stores: item.units.flatMap(({ kind, expression, output, axis, offset }) => {
      if (kind === 'part') return [{ value: expression, target: output, axis, offset }];
      return kind !== 'column' && isNeeded(output)
        ? [{ value: output, target: output, axis: 0, offset: 0 }]
        : [];
    }),
    isComputed: (tensor) =>
      computed.has(tensor.node) ||
      context.isInlined(tensor) ||
      context.isRepeated(tensor) ||
      context.isView(tensor),
    indexType: context.indexType,
    storage: context.storage,
  };
}
