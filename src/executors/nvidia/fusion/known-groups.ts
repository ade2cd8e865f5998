import { at } from '../../../tensor/shape.ts';
import { copyOf, type Node } from '../../../tensor/tensor.ts';
import type { Stage } from '../kernel.ts';
import { resultOf } from '../plain/expression.ts';
import { canFuse, type GroupWork, groupStages } from './group-kernel.ts';
import { renaming, type Structure, type Structures } from './structures.ts';

/** The stages of groups of one graph: a kernel is written once for all groups that are computed alike. */
export class KnownGroups {
  private readonly structures: Structures;
  private readonly written = new Map<string, { readonly stages: readonly Stage[]; readonly of: Structure }>();
  private readonly fusible = new Map<string, boolean>();

  constructor(structures: Structures) {
    this.structures = structures;
  }

  /** {@link canFuse}. */
  canFuse(work: GroupWork): boolean {
    const { key } = this.structureOf(work);
    const known = this.fusible.get(key) ?? canFuse(work);
    this.fusible.set(key, known);
    return known;
  }

  /** {@link groupStages}. */
  stages(work: GroupWork): readonly Stage[] {
    const structure = this.structureOf(work);
    const known = this.written.get(structure.key);
    if (known !== undefined) return renamed(known.stages, known.of, structure);
    const stages = groupStages(work);
    this.written.set(structure.key, { stages, of: structure });
    return stages;
  }

  private structureOf({ space, reductions, columns, stores, isComputed }: GroupWork): Structure {
    const inside = new Set<Node>(reductions as readonly Node[]);
    const roots = [
      ...stores.flatMap(({ value, target }) => [value, target]),
      ...reductions.map((node) => resultOf(node as Node)),
      ...columns.flatMap((node) => [node.operands[0], resultOf(node as Node)]),
    ];
    const places = stores.map(({ axis, offset }) => `${axis}+${offset}`);
    const { key, tensors } = this.structures.of(
      roots,
      (tensor) => inside.has(tensor.node) || isComputed(tensor),
    );
    return {
      key: `${space.rows}x${space.length} ${places} ${reductions.length} ${columns.length} ${key}`,
      tensors,
    };
  }
}

/** The stages of one structure for another of the same key. */
function renamed(stages: readonly Stage[], from: Structure, to: Structure): readonly Stage[] {
  // What the structure does not have are partial sums, which only the stages themselves know.
  const rename = renaming(from, to, ({ node, index }) => at(copyOf(node, []), index));
  return stages.map((stage) => {
    if (stage.kind !== 'kernel') return stage;
    const [inputs, outputs] = [stage.inputs.map(rename), stage.outputs.map(rename)];
    // Each launch has a kernel of its own, by which stages are told from each other.
    return { ...stage, kernel: { ...stage.kernel }, inputs, outputs };
  });
}
