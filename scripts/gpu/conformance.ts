/**
 * `node scripts/gpu/conformance.ts [precision] [tolerance] [table ...]`: runs the conformance cases on the GPU of this
 * machine, without vitest, and compares with the reference executor. Prints every case that differs. Default: fp32, 2e-6,
 * all tables; give tf32 and bf16 2e-2.
 */

import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { cases, longAttention } from '../../test/executors/cases.ts';
import { difference, evaluate, graphOf, halvesOf, inputValues } from '../../test/executors/comparison.ts';
import { nnCases } from '../../test/executors/nn-cases.ts';
import { openForScript } from './open.ts';

const [precision = 'fp32', tolerance = '2e-6', ...tables] = process.argv.slice(2);
const reference = new ReferenceExecutor();
await using executor = await openForScript(precision);
let [passed, failed] = [0, 0];
const start = performance.now();
for (const [table, rows] of Object.entries({ ...cases, ...nnCases, longAttention })) {
  if (tables.length > 0 && !tables.includes(table)) continue;
  for (const row of rows) {
    for (const half of halvesOf(row)) {
      const label = `${table}/${row.name}`;
      const problem = await compare(label, row, half).catch((error: unknown) =>
        (error instanceof Error ? error.message : String(error)).slice(0, 1500),
      );
      if (problem === undefined) passed++;
      else {
        failed++;
        console.log(`FAIL ${label} ${half}: ${problem}`);
      }
    }
  }
}
console.log(`${passed} passed, ${failed} failed in ${((performance.now() - start) / 1000).toFixed(1)} s`);
process.exitCode = failed > 0 ? 1 : 0;

async function compare(
  label: string,
  row: (typeof cases)[keyof typeof cases][number],
  half: 'forward' | 'backward',
): Promise<string | undefined> {
  const graph = graphOf(row, half);
  const values = row.inputs.map((input, index) => inputValues(input, `${label}.${index}`));
  const expected = await evaluate(reference, graph, values);
  const found = await evaluate(executor, graph, values);
  const problems = expected.flatMap((tensor, index) => {
    const other = found[index];
    const name = graph.outputNames[index];
    const problem =
      other === undefined ? 'missing' : difference(other, tensor, Number(tolerance) * (row.looseness ?? 1));
    return problem === undefined ? [] : [`${name} ${problem}`];
  });
  return problems.length === 0 ? undefined : problems.join('; ');
}
