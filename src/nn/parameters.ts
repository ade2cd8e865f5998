import { fold, type Key, normal, uniform } from '../random/philox.ts';
import { fromFloat32, type HostTensor, zeros } from '../tensor/host-tensor.ts';
import { at, elementCount, type Shape, type TensorType } from '../tensor/shape.ts';
import type { Tensor } from '../tensor/tensor.ts';
import { entries, mapTree, type TreeOf } from '../tensor/tree.ts';

/** How a parameter starts: all zeros, all ones, or drawn with a standard deviation or within a bound. */
export type Initializer =
  | { readonly kind: 'zeros' }
  | { readonly kind: 'ones' }
  | { readonly kind: 'normal'; readonly deviation: number }
  | { readonly kind: 'uniform'; readonly bound: number };

/** A parameter before it has a value. Trees of these describe layers; being typed, they can be traced with directly. */
export interface ParameterSpec extends TensorType {
  readonly initializer: Initializer;
}

/** Tensors in place of specifications: what a layer's function takes. */
export type Parameters<Specs> = TreeOf<Specs, Tensor>;

/** A parameter in float32. */
export function parameter(shape: Shape, initializer: Initializer): ParameterSpec {
  return { shape, dtype: 'f32', initializer };
}

/**
 * Uniform within sqrt(3 gain / inputs), which gives outputs the variance of the inputs times `gain` (LeCun et al. 1998;
 * gain 2 is He et al. 2015). `inputs` is the number of values that each output sums.
 */
export function fanIn(inputs: number, gain = 1): Initializer {
  return { kind: 'uniform', bound: Math.sqrt((3 * gain) / inputs) };
}

/**
 * Values for a tree of parameters. Each is drawn from a key of its own, derived from `key` and its path, so that adding
 * or removing one parameter changes no other.
 */
export function initialize<Specs extends object>(specs: Specs, key: Key): TreeOf<Specs, HostTensor> {
  return mapTree(specs, (leaf, path) => draw(leaf as ParameterSpec, fold(key, path)));
}

/** Number of values in a tree of parameters. */
export function parameterCount(specs: object): number {
  return entries(specs).reduce((total, [, leaf]) => total + elementCount((leaf as TensorType).shape), 0);
}

function draw({ shape, initializer }: ParameterSpec, key: Key): HostTensor {
  const count = elementCount(shape);
  switch (initializer.kind) {
    case 'zeros':
      return zeros('f32', shape);
    case 'ones':
      return fromFloat32('f32', shape, new Float32Array(count).fill(1));
    case 'normal':
      return fromFloat32(
        'f32',
        shape,
        normal(key, count).map((value) => value * initializer.deviation),
      );
    case 'uniform':
      return fromFloat32(
        'f32',
        shape,
        uniform(key, count).map((value) => (2 * value - 1) * initializer.bound),
      );
  }
}

/** Last size of a shape: the number of channels of a channels-last tensor. */
export function channelsOf({ shape }: TensorType): number {
  return at(shape, shape.length - 1);
}
