import { largestE4m3 } from '../../tensor/float8.ts';
import { makeGraph } from '../../tensor/graph.ts';
import { rewriteNodes } from '../../tensor/rewrite.ts';
import { at } from '../../tensor/shape.ts';
import {
  apply,
  constant,
  type Graph,
  type Node,
  type NodeOf,
  operandsOf,
  type Tensor,
} from '../../tensor/tensor.ts';
import { reshaped } from './views.ts';

/** A graph, and those of its products whose operands are to lie in memory as f8e4m3. */
export interface QuantisedGraph {
  readonly graph: Graph;
  readonly products: ReadonlySet<Node>;
}

/** A tensor as `values * scale + offset`, where the values reach up to the largest number of f8e4m3. */
interface Scaled {
  readonly values: Tensor;
  /** One number for each row, [..] of values [.., N], or one for all, []. */
  readonly scale: Tensor;
  /** The same for all tokens, [B, 1, N] of values [B, S, N]; undefined: 0. */
  readonly offset?: Tensor;
}

/** What stands in for the scale of zeros: small beside any other, with a reciprocal that is finite. */
const smallest = 1e-33;

/**
 * The precision `fp8` for a forward graph without calls: scales the operands of some products so that f8e4m3 holds them
 * well, and takes the scales out of the results. Nothing is rounded here; that is done by how the tensors are stored.
 *
 * - x w^T: x by the largest value of each row, w by that of each output channel.
 * - Attention: v without its mean over the keys, by its largest value, so that y, a mean of that, fits too and the product behind
 *   it reads it as it is. Weights of attention add up to 1, so the mean of v is added to y; the product behind takes it
 *   apart. Without that, what values have in common would be lost: Hopper's tensor cores cut off sums of f8e4m3
 *   at 14 bits, and over 32,768 keys of values around 1 results came out at 0.7. q and k are not scaled: what matters of them is the absolute error of their scores, and values below the smallest step of f8e4m3 make
 *   none that counts. Beyond 448 they saturate.
 *
 * A value that is not finite makes its row NaN, of v those that attend to it or all. A graph with gradients in it is left as it is.
 * @param quantises which products; of a matmul, the second operand is w [N, K]; of attention, nothing reads the log-sums,
 * which it can ask for.
 */
export function quantised(
  graph: Graph,
  quantises: (node: Node, isRead: (tensor: Tensor) => boolean) => boolean,
): QuantisedGraph {
  if (graph.nodes.some(isBackward)) return { graph, products: new Set() };
  const scaling = new Scaling();
  const read = new Set([...graph.outputs, ...graph.nodes.flatMap(operandsOf)]);
  const isRead = (tensor: Tensor) => read.has(tensor);
  const outputs = rewriteNodes(graph, (node, operands) => {
    if (node.op === 'matmul' && quantises(node, isRead)) return [scaling.matmul(node, operands)];
    if (node.op === 'attention' && quantises(node, isRead)) return scaling.attention(node, operands);
    return undefined;
  });
  return {
    graph: makeGraph(graph.name, graph.inputs, outputs, graph.outputNames),
    products: scaling.products,
  };
}

/** Whether a node is found in gradients alone. */
function isBackward(node: Node): boolean {
  switch (node.op) {
    case 'attentionGradient':
    case 'convolutionInputGradient':
    case 'convolutionKernelGradient':
      return true;
    case 'matmul':
      return node.attributes.transposeA;
    default:
      return false;
  }
}

class Scaling {
  readonly products = new Set<Node>();
  /** Tensors scaled row by row, each once. */
  private readonly rows = new Map<Tensor, Scaled>();
  /** Results of attention, which are made scaled. */
  private readonly wholes = new Map<Tensor, Scaled>();

  matmul({ attributes, origin }: NodeOf<'matmul'>, operands: readonly Tensor[]): Tensor {
    const [x, w] = [this.scaled(at(operands, 0)), this.scaled(at(operands, 1))];
    const [product] = apply('matmul', [x.values, w.values], attributes, origin) as [Tensor];
    this.products.add(product.node);
    const ofRows = x.scale.rank === 0 ? x.scale : x.scale.reshape([...x.scale.shape, 1]);
    const y = product.mul(ofRows).mul(w.scale);
    if (x.offset === undefined) return y;
    const [common] = apply('matmul', [x.offset, at(operands, 1)], attributes, origin) as [Tensor];
    return y.add(common);
  }

  attention({ attributes, origin }: NodeOf<'attention'>, operands: readonly Tensor[]): readonly Tensor[] {
    const [q, k, v] = operands as [Tensor, Tensor, Tensor];
    const [batch, keys, heads, headSize] = v.shape as [number, number, number, number];
    const offset = v.reshape([batch, keys, heads * headSize]).mean([1], true);
    const common = offset.reshape([batch, 1, heads, headSize]);
    const centred = v.sub(common);
    const scale = scaleOf(centred).max();
    const [made, logSums] = apply('attention', [q, k, divided(centred, scale)], attributes, origin) as [
      Tensor,
      Tensor,
    ];
    this.products.add(made.node);
    const y = made.mul(scale).add(common);
    this.wholes.set(y, { values: made, scale, offset });
    return [y, logSums];
  }

  private scaled(x: Tensor): Scaled {
    const whole = this.wholes.get(reshaped(x));
    const [batch, , width] = whole?.offset?.shape ?? [];
    if (whole !== undefined && x.rank === 3 && x.shape[0] === batch && x.shape[2] === width)
      return { ...whole, values: whole.values.reshape(x.shape) };
    const known = this.rows.get(x) ?? scaledByRow(x);
    this.rows.set(x, known);
    return known;
  }
}

function scaledByRow(x: Tensor): Scaled {
  const scale = scaleOf(x);
  return { values: divided(x, scale.reshape([...scale.shape, 1])), scale };
}

/** What each row, [..] of x [.., N], is to be divided by: 0 for zeros. */
function scaleOf(x: Tensor): Tensor {
  return x
    .abs()
    .mul(1 / largestE4m3)
    .max([x.rank - 1]);
}

function divided(x: Tensor, scale: Tensor): Tensor {
  return x.mul(constant([1], []).div(scale.maximum(smallest)));
}
