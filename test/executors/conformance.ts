import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { DeviceBuffer, Executor } from '../../src/executors/executor.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { fromFloat32 } from '../../src/tensor/host-tensor.ts';
import { at, type TensorType } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';
import type { ConformanceCase } from './cases.ts';
import { difference, evaluate, graphOf, halvesOf, inputValues } from './comparison.ts';
import { problemOfFixedInputs } from './fixed-inputs.ts';

/** What an executor promises. */
export interface Conformance {
  /** Largest error, relative to the largest value of the result (at least 1), for a case of looseness 1. */
  readonly tolerance: number;
  /** Cases that this executor cannot run, `op` or `op/case name` or `op/case name/backward`, and why. */
  readonly skips?: Readonly<Record<string, string>>;
}

/** A buffer for two inputs is fine, unless what overwrites one would overwrite the other; what is refused stays as it was. */
export async function expectDonatedOnce(executor: Executor): Promise<void> {
  const type: TensorType = { shape: [4], dtype: 'f32' };
  const { graph } = trace('step', (a, b, c) => [a.add(b).mul(c), b.sub(c)], type, type, type);
  const upload = (value: number) => executor.upload(fromFloat32('f32', [4], new Float32Array(4).fill(value)));
  const valuesOf = async (buffers: readonly DeviceBuffer[]) =>
    await Promise.all(
      buffers.map(async (buffer) => at((await executor.download(buffer)).data as Float32Array, 0)),
    );
  const [x, y] = [upload(2), upload(3)];
  using plain = await executor.compile(graph);
  expect(await valuesOf(await executor.run(plain, [x, y, x]))).toEqual([10, 1]);
  for (const donate of [[0], [2], [0, 1, 2]]) {
    using donating = await executor.compile(graph, { donate });
    await expect(executor.run(donating, [x, y, x])).rejects.toThrow(
      /^step: inputs 0 and 2 are one buffer, and one of them is donated; upload it twice$/,
    );
    expect([x.disposed, y.disposed, ...(await valuesOf([x, y]))]).toEqual([false, false, 2, 3]);
  }
  using donating = await executor.compile(graph, { donate: [1] });
  expect(await valuesOf(await executor.run(donating, [x, y, x]))).toEqual([10, 1]);
  expect([x.disposed, y.disposed]).toEqual([false, true]);
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

    it('refuses a buffer that is given twice when one of the two is donated', () =>
      expectDonatedOnce(executor));

    it('computes what fixed weights ask for, of the weights that it is given', async () => {
      expect(await problemOfFixedInputs(executor, Math.max(tolerance, 1e-6), [8, 16])).toBeUndefined();
    });

    for (const [table, rows] of Object.entries(tables)) {
      for (const row of rows) {
        for (const half of halvesOf(row)) {
          const label = `${table}/${row.name}`;
          const reason = skips[table] ?? skips[label] ?? skips[`${label}/${half}`];
          it.skipIf(reason !== undefined)(
            `${label} ${half}${reason === undefined ? '' : `: ${reason}`}`,
            async () => {
              const graph = graphOf(row, half);
              const values = row.inputs.map((input, index) => inputValues(input, `${label}.${index}`));
              const [expected, found] = [
                await evaluate(reference, graph, values),
                await evaluate(executor, graph, values),
              ];
              expected.forEach((tensor, index) => {
                const wrong = difference(found[index]!, tensor, tolerance * (row.looseness ?? 1));
                expect(wrong, graph.outputNames[index]!).toBeUndefined();
              });
            },
          );
        }
      }
    }
  });
}
