import { PadSums } from '../../tensor/pad-sums.ts';
import type { TensorType } from '../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor } from '../../tensor/tensor.ts';
import type { Emitter, LoweringTarget, Value } from './emitter.ts';
import { lowerNorm } from './lowerings.ts';
import { isGemm, lowerMatmul } from './matmul.ts';

/** Several nodes that ONNX Runtime does in one. */
export interface Fusion {
  /** The nodes, besides the last, that it stands for. Nothing else reads them. */
  readonly absorbed: readonly Node[];
  /** Writes the value of the last node. */
  lower(emit: Emitter, resolve: (tensor: Tensor) => Value, result: TensorType): Value;
}

/** Finds a fusion that ends at a node; `isPrivate` tells whether a single node reads a tensor. */
type Matcher = (node: Node, isPrivate: (tensor: Tensor) => boolean) => Fusion | undefined;

/** Fusions by their last node. Larger ones are found first, and no node is in two. */
export function findFusions(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
  { device, ownOperators }: LoweringTarget,
): ReadonlyMap<Node, Fusion> {
  const reads = new Map<Tensor, number>();
  for (const tensor of [...outputs, ...nodes.flatMap(operandsOf)])
    reads.set(tensor, (reads.get(tensor) ?? 0) + 1);
  const isPrivate = (tensor: Tensor) => reads.get(tensor) === 1;
  const padSums = new PadSums(isPrivate);
  const joined: Matcher = (node) => tiling(node, padSums);
  const onCpu = ownOperators
    ? [biasedMatmul, joined, totalOfSquares]
    : [biasedMatmul, scaledNorm, joined, sumOfSquares];
  const matchers: readonly Matcher[] = device === 'cpu' ? onCpu : [biasedMatmul];
  const found = new Map<Node, Fusion>();
  const absorbed = new Set<Node>();
  for (const node of [...nodes].reverse()) {
    if (absorbed.has(node)) continue;
    for (const matcher of matchers) {
      const fusion = matcher(node, isPrivate);
      if (fusion === undefined || fusion.absorbed.some((other) => absorbed.has(other))) continue;
      found.set(node, fusion);
      for (const other of fusion.absorbed) absorbed.add(other);
      break;
    }
  }
  return found;
}

/** A matrix product and the vector that is added to each of its rows: ONNX Runtime fuses them in 2-d graphs only. */
function biasedMatmul(node: Node, isPrivate: (tensor: Tensor) => boolean): Fusion | undefined {
  if (node.op !== 'add') return undefined;
  const [a, b] = node.operands;
  return fuse(a, b) ?? fuse(b, a);

  function fuse(product: Tensor, bias: Tensor): Fusion | undefined {
    const matmul = product.node;
    if (matmul.op !== 'matmul' || !isPrivate(product) || !isRowOf(bias, product)) return undefined;
    if (!isGemm(...matmul.operands, matmul.attributes)) return undefined;
    return {
      absorbed: [matmul],
      lower: (emit, resolve, result) => {
        const [left, right] = matmul.operands;
        return lowerMatmul(emit, resolve(left), resolve(right), matmul.attributes, result, resolve(bias));
      },
    };
  }
}

/** A normalisation times a vector: its operator has a scale, which otherwise is ones. */
function scaledNorm(node: Node, isPrivate: (tensor: Tensor) => boolean): Fusion | undefined {
  if (node.op !== 'mul') return undefined;
  const [a, b] = node.operands;
  return fuse(a, b) ?? fuse(b, a);

  function fuse(normed: Tensor, scale: Tensor): Fusion | undefined {
    const norm = normed.node;
    if ((norm.op !== 'rmsNorm' && norm.op !== 'layerNorm') || !isPrivate(normed)) return undefined;
    if (!isRowOf(scale, normed)) return undefined;
    const { op, attributes, operands } = norm;
    return {
      absorbed: [norm],
      lower: (emit, resolve) => lowerNorm(emit, op, resolve(operands[0]), attributes, resolve(scale)),
    };
  }
}

/** A sum of padded tensors that together cover an axis once, as the gradients of slices do: they are joined. */
function tiling(node: Node, padSums: PadSums): Fusion | undefined {
  const found = node.op === 'add' ? padSums.find(node.operands) : undefined;
  if (found === undefined) return undefined;
  const { nodes, parts, axis } = found;
  return { absorbed: nodes, lower: (emit, resolve) => emit.concat(parts.map(resolve), axis) };
}

/** The sum of a tensor's squares, in one pass. */
function sumOfSquares(node: Node, isPrivate: (tensor: Tensor) => boolean): Fusion | undefined {
  if (node.op !== 'sum' || node.attributes.axes.length === 0) return undefined;
  const [squares] = node.operands;
  const square = squares.node;
  if (square.op !== 'mul' || !isPrivate(squares)) return undefined;
  const [x, same] = square.operands;
  if (x !== same && !(x.node === same.node && x.index === same.index)) return undefined;
  const { axes, keepDims } = node.attributes;
  return {
    absorbed: [square],
    lower: (emit, resolve, result) =>
      emit.op('ReduceSumSquare', [resolve(x), emit.integers(axes)], result, { keepdims: Number(keepDims) }),
  };
}

/** {@link sumOfSquares}, but for sums over rows, which our own operator makes. */
function totalOfSquares(node: Node, isPrivate: (tensor: Tensor) => boolean): Fusion | undefined {
  if (node.op !== 'sum') return undefined;
  const [axis, ...others] = node.attributes.axes;
  const isOverRows = others.length === 0 && axis === node.operands[0].rank - 1 && axis > 0;
  return isOverRows ? undefined : sumOfSquares(node, isPrivate);
}

/** Whether a vector has an element for each of the last axis of x. */
function isRowOf(vector: Tensor, x: Tensor): boolean {
  return vector.rank === 1 && vector.shape[0] === x.shape.at(-1);
}
