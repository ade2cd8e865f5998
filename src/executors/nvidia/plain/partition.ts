import { elementCount } from '../../../tensor/shape.ts';
import { type Graph, type Node, type NodeOf, operandsOf, resultsOf } from '../../../tensor/tensor.ts';
import type { Partition, PartitionPolicy, Stage } from '../kernel.ts';
import { isWidening } from '../narrowing.ts';
import { ownStorage } from '../storage.ts';
import { attentionKernels } from './attention.ts';
import { ExpressionWriter, isPointwise, type KernelContext, resultOf } from './expression.ts';
import { chooseInlined, type Inlining } from './inlining.ts';
import { kernelOf } from './named-kernel.ts';
import { reductionStages } from './reduction.ts';
import { rowKernel } from './rows.ts';
import { scatterStages } from './scatter.ts';

/**
 * One kernel for each node, into which operands are written that nothing else uses. What cannot be written into another
 * kernel is in memory.
 */
export const partition: Partition = (graph, policy) => {
  const context = contextOf(graph, policy);
  const inMemory = constantsInMemory(graph, policy.takes);
  const stages: Stage[] = [];
  for (const node of graph.nodes) {
    if (node.op === 'input') continue;
    if (node.op === 'constant') {
      if (node.attributes.values.length !== 1 || inMemory.has(node))
        stages.push({ kind: 'constant', node, output: resultOf(node) });
      continue;
    }
    if (policy.takes(node)) {
      stages.push({ kind: 'library', node });
      continue;
    }
    if (resultsOf(node).every(context.isInlined)) continue;
    stages.push(...stagesOf(node, context));
  }
  return stages;
};

/** The stages of a node on its own. */
export function stagesOf(node: Node, context: KernelContext): readonly Stage[] {
  switch (node.op) {
    case 'reshape':
    case 'cast':
      if (isViewOfMemory(node, context) && !context.isInlined(node.operands[0]))
        return [{ kind: 'view', input: node.operands[0], output: resultOf(node) }];
      return [pointwiseStage(node, context)];
    case 'allReduce':
    case 'allGather':
    case 'reduceScatter':
      // The only process: nothing to exchange.
      return [{ kind: 'view', input: node.operands[0], output: resultOf(node) }];
    case 'sum':
    case 'max':
      return reductionStages(node, context);
    case 'softmax':
    case 'layerNorm':
    case 'rmsNorm':
      return [
        {
          kind: 'kernel',
          kernel: rowKernel(node, context.storage),
          inputs: [node.operands[0]],
          outputs: [resultOf(node)],
        },
      ];
    case 'attention':
    case 'attentionGradient':
      return attentionKernels(node, context.storage);
    case 'scatterAdd':
      return scatterStages(node, context.storage);
    default:
      return [pointwiseStage(node, context)];
  }
}

/** Whether a node leaves what is in memory as it is: a reshape, or bf16 under the name of f32. */
export function isViewOfMemory(
  node: Node,
  { storage }: Pick<KernelContext, 'storage'>,
): node is NodeOf<'reshape'> | NodeOf<'cast'> {
  return node.op === 'reshape' || (isWidening(node) && storage(resultOf(node)) === 'bf16');
}

/** A kernel with a thread for each element of a node's result; its operands may be inlined. */
function pointwiseStage(node: Node, context: KernelContext): Stage {
  const output = resultOf(node);
  const writer = new ExpressionWriter(context);
  const value = writer.computed(node, writer.unravelHome(output.shape));
  const inPlace = writer.inputs.flatMap((input, position): (readonly [number, number])[] =>
    writer.scattered.has(position) || context.storage(input) !== context.storage(output)
      ? []
      : [[position, 0]],
  );
  const kernel = kernelOf('pointwise', writer.inputs, output, context, [
    ...writer.lines,
    `put(y, i, ${value});`,
  ]);
  return { kind: 'kernel', kernel: { ...kernel, inPlace }, inputs: writer.inputs, outputs: [output] };
}

/** Index type, storage and inlining of a graph. @param isRead as {@link chooseInlined} has it. */
export function contextOf(
  graph: Graph,
  { takes, storage = ownStorage }: PartitionPolicy,
  isRead?: (user: Node, operand: Node) => boolean,
): KernelContext & Inlining {
  const largest = graph.nodes.reduce(
    (most, { results }) => Math.max(most, ...results.map(({ shape }) => elementCount(shape))),
    0,
  );
  return {
    ...chooseInlined(graph, takes, isRead),
    storage,
    indexType: largest < 2 ** 30 ? 'int' : 'long long',
  };
}

/** Constants of one value that something reads from memory; all others are written into kernels as numbers. */
export function constantsInMemory(graph: Graph, takes: (node: Node) => boolean): ReadonlySet<Node> {
  const isWrittenOut = (node: Node) =>
    !takes(node) && node.op !== 'reshape' && (isPointwise(node) || node.op === 'sum' || node.op === 'max');
  const read = graph.nodes.filter((node) => !isWrittenOut(node)).flatMap(operandsOf);
  return new Set([...graph.outputs, ...read].map(({ node }) => node).filter(({ op }) => op === 'constant'));
}
