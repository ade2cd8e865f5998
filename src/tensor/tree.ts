import { at, formatType, type TensorType } from './shape.ts';

/**
 * A tree is any nesting of objects and arrays whose leaves carry a shape and a dtype: tensors, types of tensors, host
 * tensors, device buffers. Parameters, optimizer state and batches are trees; undefined entries are left out.
 */
export type TreeOf<Tree, Leaf> = Tree extends TensorType
  ? Leaf
  : { [K in keyof Tree]: TreeOf<Tree[K], Leaf> };

/** Leaves of a tree of `Tree`'s form; `never` where it has none. */
export type LeafOf<Tree> = Tree extends TensorType
  ? Tree
  : Tree extends object
    ? LeafOf<Tree[keyof Tree]>
    : never;

/** Whether `value` is a leaf: something with a shape and a dtype. */
export function isLeaf(value: unknown): value is TensorType {
  return typeof value === 'object' && value !== null && 'shape' in value && 'dtype' in value;
}

/** Every leaf with its path, such as `blocks.0.qkv.weight`, depth first in insertion order. */
export function entries<Tree extends object>(tree: Tree): [path: string, leaf: LeafOf<Tree>][] {
  const found: [string, TensorType][] = [];
  visit(tree, '', (path, leaf) => found.push([path, leaf]));
  return found as [string, LeafOf<Tree>][];
}

/** Every leaf, in the order of {@link entries}. */
export function leaves<Tree extends object>(tree: Tree): LeafOf<Tree>[] {
  return entries(tree).map(([, leaf]) => leaf);
}

/** A tree of the same form whose leaves are `transform`'s results. */
export function mapTree<Tree extends object, Leaf>(
  tree: Tree,
  transform: (leaf: LeafOf<Tree>, path: string) => Leaf,
): TreeOf<Tree, Leaf> {
  return rebuild(tree, '', (leaf, path) => transform(leaf as LeafOf<Tree>, path)) as TreeOf<Tree, Leaf>;
}

/** A tree of `form`'s form with the given leaves, in the order of {@link entries}. */
export function withLeaves<Tree extends object, Leaf>(
  form: Tree,
  values: readonly Leaf[],
): TreeOf<Tree, Leaf> {
  let next = 0;
  return mapTree(form, () => at(values as readonly (Leaf & {})[], next++)) as TreeOf<Tree, Leaf>;
}

/** The form of a tree and the types of its leaves as text: equal for trees that a function cannot tell apart. */
export function describeTree(tree: unknown): string {
  if (isLeaf(tree)) return formatType(tree);
  if (Array.isArray(tree)) return `[${tree.map(describeTree).join()}]`;
  if (typeof tree !== 'object' || tree === null) return '';
  const present = Object.entries(tree).filter(([, child]) => child !== undefined);
  return `{${present.map(([key, child]) => `${JSON.stringify(key)}:${describeTree(child)}`).join()}}`;
}

function visit(tree: unknown, path: string, found: (path: string, leaf: TensorType) => void): void {
  if (isLeaf(tree)) found(path, tree);
  else if (typeof tree === 'object' && tree !== null) {
    for (const [key, child] of Object.entries(tree)) visit(child, join(path, key), found);
  } else if (tree !== undefined) {
    throw new TypeError(
      `tree entry ${path} is ${String(tree)}; a tree holds only tensors, objects and arrays`,
    );
  }
}

function rebuild(
  tree: unknown,
  path: string,
  transform: (leaf: TensorType, path: string) => unknown,
): unknown {
  if (isLeaf(tree)) return transform(tree, path);
  if (Array.isArray(tree))
    return tree.map((child, index) => rebuild(child, join(path, String(index)), transform));
  if (typeof tree !== 'object' || tree === null) return undefined;
  const present = Object.entries(tree).filter(([, child]) => child !== undefined);
  return Object.fromEntries(present.map(([key, child]) => [key, rebuild(child, join(path, key), transform)]));
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}
