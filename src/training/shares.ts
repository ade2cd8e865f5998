import { allGather, allReduce, reduceScatter } from '../tensor/functions.ts';
import { bytesOf, type HostTensor, zeros } from '../tensor/host-tensor.ts';
import { at, elementCount, type Shape } from '../tensor/shape.ts';
import { constant, type Tensor } from '../tensor/tensor.ts';
import { leaves, mapTree } from '../tensor/tree.ts';

/** This process among those that share the optimizer's work, each doing its part of every large parameter. */
export interface Share {
  readonly rank: number;
  readonly world: number;
}

/** Whether parameters of a shape are divided: matrices and kernels whose rows fall into equal parts. Others are everybody's. */
export function isDivided(shape: Shape, world: number): boolean {
  return world > 1 && shape.length >= 2 && elementCount(shape) > 0 && at(shape, 0) % world === 0;
}

/** The shape of a process's part of a parameter: some of its rows, or all. */
export function partShape(shape: Shape, world: number): Shape {
  return isDivided(shape, world) ? [at(shape, 0) / world, ...shape.slice(1)] : shape;
}

/** A process's part of a value on the host. */
export function partOf(whole: HostTensor, { rank, world }: Share): HostTensor {
  if (!isDivided(whole.shape, world)) return whole;
  const part = zeros(whole.dtype, partShape(whole.shape, world));
  const { length } = bytesOf(part);
  bytesOf(part).set(bytesOf(whole).subarray(rank * length, (rank + 1) * length));
  return part;
}

/** This process's parts of the values of a tree that are divided, in order. @param part makes one. */
export function partsOf<Leaf extends { readonly shape: Shape }, Part>(
  tree: object,
  world: number,
  part: (leaf: Leaf) => Part,
): Part[] {
  return (leaves(tree) as Leaf[]).filter(({ shape }) => isDivided(shape, world)).map(part);
}

/** Graph code over parts, in each of `world` processes. */
export class Parts {
  private readonly world: number;

  constructor(world: number) {
    this.world = world;
  }

  /** Whether parameters of a shape are divided. */
  divides(shape: Shape): boolean {
    return isDivided(shape, this.world);
  }

  /** A tree in which what is divided is replaced by this process's parts. */
  replaced(wholes: object, parts: readonly Tensor[]): object {
    const left = [...parts];
    return mapTree(wholes, (leaf) =>
      this.divides((leaf as Tensor).shape) ? at(left.splice(0, 1), 0) : leaf,
    );
  }

  /** This process's part of the sum of a value over all processes. */
  sum(value: Tensor): Tensor {
    return this.divides(value.shape) ? reduceScatter(value, this.world) : allReduce(value);
  }

  /** The value whose parts the processes have. @param shape of the whole. */
  whole(part: Tensor, shape: Shape): Tensor {
    return this.divides(shape) ? allGather(part, this.world) : part;
  }

  /** Square root of the sum of squares of every element of a tree of parts. @param wholes tree of the whole shapes. */
  norm(parts: object, wholes: object): Tensor {
    const all = leaves(parts) as Tensor[];
    const shapes = (leaves(wholes) as { readonly shape: Shape }[]).map(({ shape }) => shape);
    const squares = (isOwn: boolean) =>
      all
        .filter((_, i) => this.divides(at(shapes, i)) === isOwn)
        .reduce((total, part) => total.add(part.square().sum()), constant([0], []));
    return allReduce(squares(true)).add(squares(false)).sqrt();
  }
}
