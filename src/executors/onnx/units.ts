import { at } from '../../tensor/shape.ts';
import { type Node, operandsOf, type Tensor } from '../../tensor/tensor.ts';
import type { LoweringTarget } from './emitter.ts';
import { type FusedCode, writeCode } from './fused/code.ts';
import { findGroups, type Group } from './fused/groups.ts';
import { type Fusion, findFusions } from './fusion.ts';

/** What is lowered at once: a node, alone or with those that its fusion absorbs, or a group by our own operator. */
export type Unit =
  | { readonly node: Node; readonly fusion: Fusion | undefined }
  | { readonly code: FusedCode };

/** A group that one operation does. */
interface FusedGroup {
  readonly members: ReadonlySet<Node>;
  readonly last: Node;
  readonly code: FusedCode;
}

/**
 * Units in an order in which each finds its operands.
 * @param anyLength whether the sizes of the nodes, all vectors and scalars, are known only when the model runs.
 */
export function findUnits(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
  target: LoweringTarget,
  anyLength: boolean,
): Unit[] {
  const fusions = findFusions(nodes, outputs, target);
  const absorbed = new Set<Node>([...fusions.values()].flatMap((fusion) => fusion.absorbed));
  const others = nodes.filter((node) => !absorbed.has(node));
  const single = (node: Node) => ({ node, fusion: fusions.get(node) });
  if (!target.ownOperators) return others.map(single);
  const isFree = (node: Node) => !absorbed.has(node) && !fusions.has(node);
  const { groups, distanceFromEnd } = findGroups(nodes, outputs, isFree);
  const readers = readersOf(nodes, outputs);
  const fused = groups.flatMap((group) => fusedGroup(group, readers, anyLength));
  const inGroup = new Set<Node | 'output'>(fused.flatMap(({ members }) => [...members]));
  const read = new Set(fused.flatMap(({ code }) => code.inputs.map(({ node }) => node)));
  // Fused operations read stretches of rows where the rows are.
  const isReadInPlace = (node: Node) =>
    node.op === 'slice' && !read.has(node) && readers(node).every((reader) => inGroup.has(reader));
  const isLeft = (node: Node) =>
    !inGroup.has(node) &&
    !isReadInPlace(node) &&
    !(isScalarConstant(node) && readers(node).every((reader) => inGroup.has(reader)));
  const placed = [
    ...others.filter(isLeft).map((node) => ({ last: node, unit: single(node) })),
    ...fused.map(({ last, code }) => ({ last, unit: { code } })),
  ];
  const distance = ({ last }: { last: Node }) => distanceFromEnd.get(last) ?? 0;
  return placed.sort((a, b) => distance(b) - distance(a) || a.last.id - b.last.id).map(({ unit }) => unit);
}

/** The operands that a lowering reads: the gradient of attention has Softmax again and no need of the log-sums. */
export function readOperands(node: Node): readonly Tensor[] {
  const operands = operandsOf(node);
  return node.op === 'attentionGradient' ? operands.filter((_, index) => index !== 4) : operands;
}

function fusedGroup(
  group: Group,
  readers: (node: Node) => readonly (Node | 'output')[],
  anyLength: boolean,
): FusedGroup[] {
  const members = new Set<Node | 'output'>(group.nodes);
  // Nodes of a group have one result.
  const isNeeded = ({ node }: Tensor) => readers(node).some((reader) => !members.has(reader));
  const code = writeCode(group, isNeeded, anyLength);
  return code === undefined
    ? []
    : [{ members: new Set(group.nodes), code, last: at(group.nodes, group.nodes.length - 1) }];
}

/** What reads a node's results: nodes, and the outputs of the whole. */
function readersOf(
  nodes: readonly Node[],
  outputs: readonly Tensor[],
): (node: Node) => readonly (Node | 'output')[] {
  const readers = new Map<Node, (Node | 'output')[]>(nodes.map((node) => [node, []]));
  for (const node of nodes) for (const operand of readOperands(node)) readers.get(operand.node)?.push(node);
  for (const output of outputs) readers.get(output.node)?.push('output');
  return (node) => readers.get(node) ?? [];
}

/** Whether a node is a number that fused operations hold themselves. */
function isScalarConstant(node: Node): boolean {
  return node.op === 'constant' && node.attributes.values.length === 1;
}
