import { input, makeGraph } from './graph.ts';
import type { TensorType } from './shape.ts';
import { apply, type Graph, type Tensor } from './tensor.ts';
import { describeTree, entries, type TreeOf, withLeaves } from './tree.ts';

/** A traced function: its graph, and the trees of types that its values are given and returned in. */
export interface Traced<Arguments extends readonly object[], Result extends object> {
  readonly graph: Graph;
  /** Types of the arguments; `graph.inputs` are their leaves in order. */
  readonly parameters: Arguments;
  /** Types of the result; `graph.outputs` are its leaves in order. */
  readonly result: TreeOf<Result, TensorType>;
}

/** Trees of symbolic tensors for trees of types. */
export type Symbolic<Arguments extends readonly object[]> = {
  [I in keyof Arguments]: TreeOf<Arguments[I], Tensor>;
};

/**
 * Runs `build` on symbolic tensors of the given types and records what it computes.
 *
 * Inputs are named by argument and path (`0.blocks.1.weight`), outputs by path.
 * @throws GraphError when an operation does not fit, or when the result uses a tensor from outside.
 */
export function trace<const Arguments extends readonly object[], Result extends object>(
  name: string,
  build: (...values: Symbolic<Arguments>) => Result,
  ...parameters: Arguments
): Traced<Arguments, Result> {
  const inputs = entries(parameters).map(([path, type]) => input(path, type));
  const result = build(...(withLeaves(parameters, inputs) as Symbolic<Arguments>));
  const outputs = entries(result) as [string, Tensor][];
  const graph = makeGraph(
    name,
    inputs,
    outputs.map(([, tensor]) => tensor),
    outputs.map(([path]) => path || 'result'),
  );
  const types = graph.outputs.map(({ shape, dtype }) => ({ shape, dtype }));
  return { graph, parameters, result: withLeaves(result, types) as TreeOf<Result, TensorType> };
}

/**
 * Makes `build` a subgraph: traced once for each set of argument types, and a single `call` node at each use, so that
 * a model's graph, its compilation and its gradients do not grow with the number of layers.
 *
 * `build` must compute only from its arguments; plain settings may come from outside and must not change.
 */
export function block<Arguments extends readonly object[], Result extends object>(
  name: string,
  build: (...values: Arguments) => Result,
  { recompute = false } = {},
): (...values: Arguments) => Result {
  const traced = new Map<string, Traced<Arguments, Result>>();
  return (...values) => {
    const operands = entries(values) as [string, Tensor][];
    const key = describeTree(values);
    const known = traced.get(key) ?? traceBlock(name, build, values);
    traced.set(key, known);
    const results = apply(
      'call',
      operands.map(([, tensor]) => tensor),
      { graph: known.graph, recompute },
    );
    return withLeaves(known.result, results) as unknown as Result;
  };
}

/**
 * Marks a function to be recomputed in the backward pass (Chen et al. 2016): only its arguments are kept, in exchange
 * for running it twice. Otherwise as {@link block}.
 */
export function checkpoint<Arguments extends readonly object[], Result extends object>(
  build: (...values: Arguments) => Result,
  name = build.name || 'checkpoint',
): (...values: Arguments) => Result {
  return block(name, build, { recompute: true });
}

function traceBlock<Arguments extends readonly object[], Result extends object>(
  name: string,
  build: (...values: Arguments) => Result,
  values: Arguments,
): Traced<Arguments, Result> {
  return trace<Arguments, Result>(
    name,
    (...symbols) => build(...(symbols as unknown as Arguments)),
    ...values,
  );
}
