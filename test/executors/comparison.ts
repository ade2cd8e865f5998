import type { Executor } from '../../src/executors/executor.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, hostTensor } from '../../src/tensor/host-tensor.ts';
import { at, elementCount, formatType } from '../../src/tensor/shape.ts';
import { constant, type Graph, isDifferentiable, type Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import type { CaseInput, ConformanceCase } from './cases.ts';

/** The halves of a case: its computation, and its gradients. */
export type Half = 'forward' | 'backward';

/** Which halves a case has. */
export function halvesOf({ forwardOnly }: ConformanceCase): readonly Half[] {
  return forwardOnly ? ['forward'] : ['forward', 'backward'];
}

/** The graph of half a case. */
export function graphOf(row: ConformanceCase, half: Half): Graph {
  return half === 'forward' ? forwardGraph(row) : backwardGraph(row);
}

/** The case's computation alone. */
export function forwardGraph(row: ConformanceCase): Graph {
  return trace(row.name, (...inputs: Tensor[]) => [...row.build(...inputs)], ...row.inputs).graph;
}

/** Gradients, in every float input, of the results weighted by fixed numbers. */
export function backwardGraph(row: ConformanceCase): Graph {
  return trace(
    row.name,
    (...inputs: Tensor[]) => {
      const loss = weighted(row.build(...inputs));
      return gradients(loss, inputs.filter(isDifferentiable));
    },
    ...row.inputs,
  ).graph;
}

/** Sum of all results, each element with a weight of its own, so that no gradient cancels. */
export function weighted(results: readonly Tensor[]): Tensor {
  return results
    .filter(isDifferentiable)
    .map((result) => {
      const weights = Array.from(
        { length: elementCount(result.shape) },
        (_, i) => Math.sin(1 + 0.7 * i) + 0.3,
      );
      return result.mul(constant(weights, result.shape)).sum();
    })
    .reduce((a, b) => a.add(b));
}

/** Values of a case's input: the same on every run. */
export function inputValues({ shape, dtype, source }: CaseInput, name: string): HostTensor {
  const key = fold(keyFromSeed(7), name);
  const count = elementCount(shape);
  if (typeof source !== 'string') {
    if (dtype === 'i32') return hostTensor(dtype, shape, Int32Array.from(source));
    if (dtype === 'bool') return hostTensor(dtype, shape, Uint8Array.from(source));
    return hostTensor('f32', shape, Float32Array.from(source));
  }
  if (dtype !== 'f32' && dtype !== 'f16' && dtype !== 'bf16') throw new TypeError(`no random ${dtype}`);
  const draws = {
    normal: () => normal(key, count),
    positive: () => uniform(key, count).map((u) => u + 0.5),
    // No two values close to each other, in one input or in two neighbours, and none close to 0: maxima and signs do
    // not change under small steps.
    distinct: () => {
      const fraction = 0.1 + 0.5 * (Number(name.at(-1)) % 2);
      return uniform(key, count).map(
        (u, i) => (((i * 7919) % 1009) + fraction + u / 8) * (i % 2 ? -0.01 : 0.01),
      );
    },
  };
  return fromFloat32(dtype, shape, draws[source]());
}

/** Runs a graph once. */
export async function evaluate(
  executor: Executor,
  graph: Graph,
  values: readonly HostTensor[],
): Promise<HostTensor[]> {
  using executable = await executor.compile(graph);
  using buffers = new DisposableStack();
  const outputs = await executor.run(
    executable,
    values.map((value) => buffers.use(executor.upload(value))),
  );
  return Promise.all(outputs.map((output) => executor.download(buffers.use(output))));
}

/** What is wrong with a result: its type, or its largest error relative to the largest value; undefined when nothing. */
export function difference(found: HostTensor, expected: HostTensor, tolerance: number): string | undefined {
  if (formatType(found) !== formatType(expected) || found.data.length !== expected.data.length)
    return `is ${formatType(found)}, must be ${formatType(expected)}`;
  const { error, scale } = largestError(found, expected);
  const exact = expected.dtype === 'i32' || expected.dtype === 'bool';
  const bound = exact ? 0 : tolerance * scale;
  return error <= bound ? undefined : `largest error ${error} at scale ${scale}, bound ${bound}`;
}

/** The largest error, NaN when a value is, and the largest value, at least 1. */
export function largestError(found: HostTensor, expected: HostTensor): { error: number; scale: number } {
  let [error, scale] = [0, 1];
  for (let i = 0; i < expected.data.length; i++) {
    const value = at(expected.data, i);
    const off = Math.abs(at(found.data, i) - value);
    if (!(off <= error)) error = Number.isNaN(error) ? error : off;
    scale = Math.max(scale, Math.abs(value));
  }
  return { error, scale };
}
