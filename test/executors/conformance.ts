import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Executor } from '../../src/executors/executor.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, hostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, formatType } from '../../src/tensor/shape.ts';
import { constant, type Graph, isDifferentiable, type Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import type { CaseInput, ConformanceCase } from './cases.ts';

/** What an executor promises. */
export interface Conformance {
  /** Largest error, relative to the largest value of the result (at least 1), for a case of looseness 1. */
  readonly tolerance: number;
  /** Cases that this executor cannot run, `op` or `op/case name` or `op/case name/backward`, and why. */
  readonly skips?: Readonly<Record<string, string>>;
}

/** Runs every case of every table, forward and backward, on an executor and compares with the reference. */
export function describeConformance(
  name: string,
  open: () => Executor,
  tables: Readonly<Record<string, readonly ConformanceCase[]>>,
  { tolerance, skips = {} }: Conformance,
): void {
  describe(`conformance of ${name}`, () => {
    const reference = new ReferenceExecutor();
    let executor: Executor;
    beforeAll(() => {
      executor = open();
    });
    afterAll(() => executor[Symbol.asyncDispose]());

    for (const [table, rows] of Object.entries(tables)) {
      for (const row of rows) {
        for (const half of row.forwardOnly ? (['forward'] as const) : (['forward', 'backward'] as const)) {
          const label = `${table}/${row.name}`;
          const reason = skips[table] ?? skips[label] ?? skips[`${label}/${half}`];
          it.skipIf(reason !== undefined)(
            `${label} ${half}${reason === undefined ? '' : `: ${reason}`}`,
            async () => {
              const graph = half === 'forward' ? forwardGraph(row) : backwardGraph(row);
              const values = row.inputs.map((input, index) => inputValues(input, `${label}.${index}`));
              const [expected, found] = [
                await evaluate(reference, graph, values),
                await evaluate(executor, graph, values),
              ];
              expected.forEach((tensor, index) => {
                expectClose(
                  found[index]!,
                  tensor,
                  tolerance * (row.looseness ?? 1),
                  graph.outputNames[index]!,
                );
              });
            },
          );
        }
      }
    }
  });
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

/** Asserts equal types and values; integers and booleans exactly. */
export function expectClose(found: HostTensor, expected: HostTensor, tolerance: number, name: string): void {
  expect(formatType(found), name).toBe(formatType(expected));
  expect(found.data.length, name).toBe(expected.data.length);
  const exact = expected.dtype === 'i32' || expected.dtype === 'bool';
  let scale = 1;
  for (const value of expected.data) scale = Math.max(scale, Math.abs(value));
  let worst = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const error = Math.abs(found.data[i]! - expected.data[i]!);
    if (!(error <= worst)) worst = error;
  }
  expect(worst, `${name}: largest error at scale ${scale}`).toBeLessThanOrEqual(
    exact ? 0 : tolerance * scale,
  );
}
