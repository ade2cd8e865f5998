import { TensorMap } from '../../../tensor/rewrite.ts';
import { at, elementCount } from '../../../tensor/shape.ts';
import { type Graph, type Node, operandsOf, resultsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Partition, Stage } from '../kernel.ts';
import { attentionKernels } from './attention.ts';
import { ExpressionWriter, isIndexOperation, isPointwise, resultOf, storageType } from './expression.ts';
import { kernelOf } from './named-kernel.ts';
import { reductionStages } from './reduction.ts';
import { rowKernel } from './rows.ts';
import { scatterKernel } from './scatter.ts';

/**
 * One kernel for each node, into which operands are written that nothing else uses. What cannot be written into another
 * kernel is in memory.
 */
export const partition: Partition = (graph, policy) => {
  const isInlined = chooseInlined(graph, policy.takes);
  const stages: Stage[] = [];
  for (const node of graph.nodes) {
    if (node.op === 'input') continue;
    if (node.op === 'constant') {
      if (node.attributes.values.length !== 1 || isNeededInMemory(graph, node, policy.takes))
        stages.push({ kind: 'constant', node, output: resultOf(node) });
      continue;
    }
    if (policy.takes(node)) {
      stages.push({ kind: 'library', node });
      continue;
    }
    if (resultsOf(node).every(isInlined)) continue;
    stages.push(...stagesOf(node, isInlined));
  }
  return stages;
};

function stagesOf(node: Node, isInlined: (tensor: Tensor) => boolean): readonly Stage[] {
  switch (node.op) {
    case 'reshape':
      if (!isInlined(node.operands[0]))
        return [{ kind: 'view', input: node.operands[0], output: resultOf(node) }];
      return [pointwiseStage(node, isInlined)];
    case 'allReduce':
    case 'allGather':
    case 'reduceScatter':
      // The only process: nothing to exchange.
      return [{ kind: 'view', input: node.operands[0], output: resultOf(node) }];
    case 'sum':
    case 'max':
      return reductionStages(node, isInlined);
    case 'softmax':
    case 'layerNorm':
    case 'rmsNorm':
      return [
        { kind: 'kernel', kernel: rowKernel(node), inputs: [node.operands[0]], outputs: [resultOf(node)] },
      ];
    case 'attention':
    case 'attentionGradient':
      return attentionKernels(node);
    case 'scatterAdd':
      return [
        {
          kind: 'kernel',
          kernel: scatterKernel(node),
          inputs: [...node.operands],
          outputs: [resultOf(node)],
        },
      ];
    default:
      return [pointwiseStage(node, isInlined)];
  }
}

/** A kernel with a thread for each element of a node's result. */
function pointwiseStage(node: Node, isInlined: (tensor: Tensor) => boolean): Stage {
  const output = resultOf(node);
  const count = elementCount(output.shape);
  // The node's own result is what is written; only its operands may be inlined.
  const index = output.shape.map((size, axis) => (size === 1 ? '0' : `h${axis}`));
  const writer = new ExpressionWriter(isInlined, { index, shape: output.shape });
  const home = new ExpressionWriter(isInlined);
  home.unravel('i', output.shape);
  const value = writer.computed(node, index);
  const indices = home.lines.map((line) => line);
  const names = output.shape.flatMap((size, axis) => (size === 1 ? [] : [`h${axis}`]));
  const declarations = indices.map((line, position) =>
    line.replace(/const long long i\d+/, `const long long ${at(names, position)}`),
  );
  const inPlace = writer.inputs.flatMap((input, position): (readonly [number, number])[] =>
    writer.scattered.has(position) || storageType(input.dtype) !== storageType(output.dtype)
      ? []
      : [[position, 0]],
  );
  const kernel = kernelOf('pointwise', writer.inputs, output, count, [
    ...declarations,
    ...writer.lines,
    `put(y, i, ${value});`,
  ]);
  return { kind: 'kernel', kernel: { ...kernel, inPlace }, inputs: writer.inputs, outputs: [output] };
}

/** Decides which results are computed inside the kernels that use them. */
function chooseInlined(graph: Graph, takes: (node: Node) => boolean): (tensor: Tensor) => boolean {
  const users = new TensorMap<Node[]>();
  for (const node of graph.nodes) {
    for (const operand of operandsOf(node)) users.set(operand, [...(users.get(operand) ?? []), node]);
  }
  const outputs = new TensorMap<true>();
  for (const output of graph.outputs) outputs.set(output, true);
  const inlined = new TensorMap<true>();
  for (const node of [...graph.nodes].reverse()) {
    if (takes(node) || !isPointwise(node)) continue;
    const result = resultOf(node);
    const uses = users.get(result) ?? [];
    const accepts = (user: Node) =>
      !takes(user) &&
      (user.op === 'sum' ||
        user.op === 'max' ||
        (isPointwise(user) && (user.op !== 'reshape' || inlined.has(resultOf(user)))));
    const few = uses.length === 1 || (isIndexOperation(node) && uses.length > 0);
    if (few && !outputs.has(result) && uses.every(accepts)) inlined.set(result, true);
  }
  return (tensor) => inlined.has(tensor);
}

/** Whether a constant of one value has a use that reads memory. */
function isNeededInMemory(graph: Graph, constant: Node, takes: (node: Node) => boolean): boolean {
  const isUse = ({ node }: Tensor) => node === constant;
  return (
    graph.outputs.some(isUse) ||
    graph.nodes.some(
      (node) =>
        operandsOf(node).some(isUse) &&
        (takes(node) ||
          !(isPointwise(node) || node.op === 'sum' || node.op === 'max') ||
          node.op === 'reshape'),
    )
  );
}
