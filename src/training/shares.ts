import { allGather, allReduce, gather, reduceScatter } from '../tensor/functions.ts';
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

/** Graph code over parts, in each of `world` processes. */
export class Parts {
  private readonly world: number;
  private readonly rank: Tensor;

  /** @param rank which process this is, i32 [1]. */
  constructor(world: number, rank: Tensor) {
    this.world = world;
    this.rank = rank;
  }

  /** This process's parts of values that all have: [R, ..] -> [R / world, ..]. */
  owns(wholes: object): object {
    return mapTree(wholes, (leaf) => {
      const whole = leaf as Tensor;
      if (!isDivided(whole.shape, this.world)) return whole;
      const parts = whole.reshape([this.world, elementCount(whole.shape) / this.world]);
      return gather(parts, this.rank).reshape(partShape(whole.shape, this.world));
    });
  }

  /** This process's part of the sum of a value over all processes. */
  sum(value: Tensor): Tensor {
    return isDivided(value.shape, this.world) ? reduceScatter(value, this.world) : allReduce(value);
  }

  /** The value whose parts the processes have. @param shape of the whole. */
  whole(part: Tensor, shape: Shape): Tensor {
    return isDivided(shape, this.world) ? allGather(part, this.world) : part;
  }

  /** Square root of the sum of squares of every element of a tree of parts. @param wholes tree of the whole shapes. */
  norm(parts: object, wholes: object): Tensor {
    const all = leaves(parts) as Tensor[];
    const shapes = (leaves(wholes) as { readonly shape: Shape }[]).map(({ shape }) => shape);
    const squares = (isOwn: boolean) =>
      all
        .filter((_, i) => isDivided(at(shapes, i), this.world) === isOwn)
        .reduce((total, part) => total.add(part.square().sum()), constant([0], []));
    return allReduce(squares(true)).add(squares(false)).sqrt();
  }
}
