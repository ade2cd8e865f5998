import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Executor } from '../../src/executors/executor.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import type { ConformanceCase } from './cases.ts';
import { difference, evaluate, graphOf, halvesOf, inputValues } from './comparison.ts';

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
