import { type Backward, type GradientRule, gradientRules } from './gradient-rules.ts';
import { input, makeGraph } from './graph.ts';
import { substitute } from './rewrite.ts';
import { at, formatType, GraphError } from './shape.ts';
import {
  apply,
  constant,
  type Graph,
  isDifferentiable,
  type Node,
  type NodeOf,
  nodesOf,
  operandsOf,
  resultsOf,
  type Tensor,
  zeros,
} from './tensor.ts';
import { leaves, type TreeOf, withLeaves } from './tree.ts';
import type { Op } from './vocabulary.ts';

/**
 * Gradients of a scalar in each tensor of a tree, by reverse-mode differentiation on the graph.
 *
 * @param loss f32 scalar.
 * @param wrt tree of tensors that `loss` is computed from; where it does not depend on one, the gradient is zeros.
 * @returns a tree of the same form and shapes.
 * @throws GraphError when `loss` is not a scalar or an operation on the way has no gradient.
 */
export function gradients<Tree extends object>(loss: Tensor, wrt: Tree): TreeOf<Tree, Tensor> {
  if (loss.rank !== 0 || !isDifferentiable(loss)) {
    throw new GraphError(`gradients: the loss must be a floating scalar, got ${formatType(loss)}`);
  }
  const tensors = leaves(wrt) as Tensor[];
  const found = backpropagate([[loss, constant([1], [], loss.dtype)]], tensors);
  return withLeaves(
    wrt,
    tensors.map((tensor, index) => found[index] ?? zeros(tensor)),
  );
}

/**
 * Pulls gradients of some tensors back to others.
 * @param seeds tensors and the gradient that arrives at each.
 * @returns the gradient of each of `wrt`, undefined where none arrives.
 */
function backpropagate(
  seeds: readonly (readonly [Tensor, Tensor])[],
  wrt: readonly Tensor[],
): (Tensor | undefined)[] {
  const targets = new Map<Tensor, true>();
  for (const tensor of wrt) targets.set(tensor, true);
  const nodes = nodesOf(seeds.map(([tensor]) => tensor));
  const active = new Set<Node>();
  const isActive = (tensor: Tensor) => targets.has(tensor) || active.has(tensor.node);
  for (const node of nodes) {
    if (operandsOf(node).some(isActive)) active.add(node);
  }

  const gradientOf = new Map<Tensor, Tensor>();
  const accumulate = (tensor: Tensor, gradient: Tensor) => {
    const sum = gradientOf.get(tensor);
    gradientOf.set(tensor, sum === undefined ? gradient : sum.add(gradient));
  };
  for (const [tensor, gradient] of seeds) accumulate(tensor, gradient);
  for (const node of nodes.reverse()) {
    if (!active.has(node)) continue;
    const dys = resultsOf(node).map((result) => gradientOf.get(result));
    if (dys.every((dy) => dy === undefined)) continue;
    const operandGradients = pullBack(node, dys, isActive);
    operandsOf(node).forEach((operand, index) => {
      const gradient = operandGradients[index];
      if (gradient !== undefined && isActive(operand) && isDifferentiable(operand))
        accumulate(operand, gradient);
    });
  }
  return wrt.map((tensor) => gradientOf.get(tensor));
}

type Gradients = readonly (Tensor | undefined)[];

function pullBack(node: Node, dys: Gradients, isActive: (tensor: Tensor) => boolean): Gradients {
  if (node.op === 'call') return pullBackCall(node, dys, isActive);
  return pullBackPrimitive(node, dys);
}

function pullBackPrimitive<K extends Exclude<Op, 'call'>>(node: NodeOf<K>, dys: Gradients): Gradients {
  const ys = resultsOf(node as unknown as Node);
  const y = at(ys, 0);
  const backward: Backward<K> = {
    operands: node.operands,
    attributes: node.attributes,
    y,
    ys,
    dy: dys[0] ?? zeros(y),
    dys,
  };
  const rule: GradientRule<K> = gradientRules[node.op];
  return rule(backward);
}

/** The gradient of a call is a call of the subgraph's gradient, made once per subgraph and set of active operands. */
function pullBackCall(
  call: NodeOf<'call'>,
  dys: Gradients,
  isActive: (tensor: Tensor) => boolean,
): Gradients {
  const { graph, recompute } = call.attributes;
  const wanted = call.operands.map((operand) => isActive(operand) && isDifferentiable(operand));
  const given = dys.map((dy) => dy !== undefined);
  const { forward, backward, kept } = differentiate(graph, given, wanted, recompute);
  const results =
    forward === graph ? resultsOf(call) : apply('call', call.operands, { graph: forward, recompute });
  const keptValues = kept.map(({ from, index }) => at(from === 'input' ? call.operands : results, index));
  const arriving = dys.filter((dy) => dy !== undefined);
  const found = apply('call', [...keptValues, ...arriving], { graph: backward, recompute: false });
  let next = 0;
  return wanted.map((isWanted) => (isWanted ? found[next++] : undefined));
}

/** A subgraph's forward pass, extended by what its backward pass needs, and that backward pass. */
interface Differentiated {
  readonly forward: Graph;
  /** From the kept values and the arriving gradients to the gradients of the wanted inputs. */
  readonly backward: Graph;
  /** Which inputs and outputs of `forward` are the backward pass's first inputs. */
  readonly kept: readonly { readonly from: 'input' | 'output'; readonly index: number }[];
}

const differentiated = new WeakMap<Graph, Map<string, Differentiated>>();

function differentiate(
  graph: Graph,
  given: readonly boolean[],
  wanted: readonly boolean[],
  recompute: boolean,
): Differentiated {
  const known = differentiated.get(graph) ?? new Map<string, Differentiated>();
  differentiated.set(graph, known);
  const key = `${given}/${wanted}/${recompute}`;
  const result = known.get(key) ?? differentiateGraph(graph, given, wanted, recompute);
  known.set(key, result);
  return result;
}

function differentiateGraph(
  graph: Graph,
  given: readonly boolean[],
  wanted: readonly boolean[],
  recompute: boolean,
): Differentiated {
  const seeded = graph.outputs.filter((_, index) => given[index]);
  const arriving = seeded.map((output, index) => input(`gradient.${index}`, output));
  const wrt = graph.inputs.filter((_, index) => wanted[index]);
  const pulled = backpropagate(
    seeded.map((output, index) => [output, at(arriving, index)] as const),
    wrt,
  );
  const results = wrt.map((tensor, index) => pulled[index] ?? zeros(tensor));

  const keptTensors = keptForBackward(graph, results, recompute);
  const replacements = new Map<Tensor, Tensor>();
  const keptInputs = keptTensors.map((tensor, index) => {
    const replacement = input(`kept.${index}`, tensor);
    replacements.set(tensor, replacement);
    return replacement;
  });
  const backward = makeGraph(
    `${graph.name}.gradient`,
    [...keptInputs, ...arriving],
    substitute(results, replacements),
  );

  const outputs = [...graph.outputs];
  const kept = keptTensors.map((tensor) => {
    const asInput = graph.inputs.findIndex((candidate) => isSame(candidate, tensor));
    if (asInput >= 0) return { from: 'input', index: asInput } as const;
    const asOutput = outputs.findIndex((candidate) => isSame(candidate, tensor));
    if (asOutput >= 0) return { from: 'output', index: asOutput } as const;
    return { from: 'output', index: outputs.push(tensor) - 1 } as const;
  });
  if (outputs.length === graph.outputs.length) return { forward: graph, backward, kept };
  const names = outputs.map((_, index) => graph.outputNames[index] ?? `kept.${index}`);
  return { forward: makeGraph(`${graph.name}.keeping`, graph.inputs, outputs, names, graph), backward, kept };
}

/**
 * The forward values that a backward pass reads. When recomputing, inputs alone; otherwise what it uses directly,
 * seen through operations that cost nothing to repeat, so that a reshaped tensor is not kept twice, and through sums of
 * inputs, such as what all blocks share and a table of the block's own.
 */
function keptForBackward(graph: Graph, results: readonly Tensor[], recompute: boolean): Tensor[] {
  const forward = new Set(nodesOf(graph.outputs));
  for (const { node } of graph.inputs) forward.add(node);
  const kept = new Map<Tensor, Tensor>();
  const order: Tensor[] = [];
  const sums = sumsOfInputs(forward);
  const keep = (tensor: Tensor) => {
    if (kept.has(tensor)) return;
    const { node } = tensor;
    if (node.op !== 'input' && (recompute || isFree(node) || sums.has(node)))
      return operandsOf(node).forEach(keep);
    kept.set(tensor, tensor);
    order.push(tensor);
  };
  for (const node of nodesOf(results)) {
    if (!forward.has(node))
      for (const operand of operandsOf(node)) if (forward.has(operand.node)) keep(operand);
  }
  for (const result of results) if (forward.has(result.node)) keep(result);
  return order;
}

function isFree({ op }: Node): boolean {
  return op === 'constant' || op === 'reshape' || op === 'transpose' || op === 'broadcast' || op === 'slice';
}

/** Of nodes, operands first, those that are inputs or made of inputs by sums and operations that cost nothing. */
function sumsOfInputs(nodes: Iterable<Node>): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (const node of nodes)
    if (
      node.op === 'input' ||
      ((isFree(node) || node.op === 'add') && operandsOf(node).every((x) => found.has(x.node)))
    )
      found.add(node);
  return found;
}

function isSame(a: Tensor, b: Tensor): boolean {
  return a.node === b.node && a.index === b.index;
}
