/**
 * `node scripts/gpu/conformance.ts [precision] [tolerance] [table ...]`: runs the conformance cases on the GPU of this
 * machine, without vitest, and compares with the reference executor. Prints every case that differs. Default: fp32, 2e-6,
 * all tables; give tf32, bf16 and fp8 2e-2. The table \`fp8\`, of cases large enough for that precision, has a tolerance of its
 * own; others than fp8 run it when it is named.
 */

import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { cases, longAttention } from '../../test/executors/cases.ts';
import { difference, evaluate, graphOf, halvesOf, inputValues } from '../../test/executors/comparison.ts';
import { problemOfFixedInputs } from '../../test/executors/fixed-inputs.ts';
import { fp8Cases, fp8Tolerance, largeSizes } from '../../test/executors/fp8-cases.ts';
import { nnCases } from '../../test/executors/nn-cases.ts';
import { openForScript } from './open.ts';

const [precision = 'fp32', tolerance = '2e-6', ...tables] = process.argv.slice(2);
const reference = new ReferenceExecutor();
await using executor = await openForScript(precision);
let [passed, failed] = [0, 0];
const start = performance.now();
const all = { ...cases, ...nnCases, longAttention, fp8: fp8Cases(largeSizes) };
for (const [table, rows] of Object.entries(all)) {
  if (tables.length > 0 ? !tables.includes(table) : table === 'fp8' && precision !== 'fp8') continue;
  for (const row of rows) {
    for (const half of halvesOf(row)) {
      const label = `${table}/${row.name}`;
      const bound = (table === 'fp8' ? fp8Tolerance : Number(tolerance)) * (row.looseness ?? 1);
      const problem = await compare(label, row, half, bound).catch((error: unknown) =>
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
const fixedProblem = await problemOfFixedInputs(executor, 1e-2, [1024, 256]);
if (fixedProblem === undefined) passed++;
else {
  failed++;
  console.log(`FAIL fixed inputs: ${fixedProblem}`);
}
console.log(`${passed} passed, ${failed} failed in ${((performance.now() - start) / 1000).toFixed(1)} s`);
const fallback = await executor.fallback?.();
if (fallback !== undefined) console.log(`${executor.name} ${fallback}`);
process.exitCode = failed > 0 ? 1 : 0;

async function compare(
  label: string,
  row: (typeof cases)[keyof typeof cases][number],
  half: 'forward' | 'backward',
  bound: number,
): Promise<string | undefined> {
  const graph = graphOf(row, half);
  const values = row.inputs.map((input, index) => inputValues(input, `${label}.${index}`));
  const expected = await evaluate(reference, graph, values);
  const found = await evaluate(executor, graph, values);
  const problems = expected.flatMap((tensor, index) => {
    const other = found[index];
    const name = graph.outputNames[index];
    const problem = other === undefined ? 'missing' : difference(other, tensor, bound);
    return problem === undefined ? [] : [`${name} ${problem}`];
  });
  return problems.length === 0 ? undefined : problems.join('; ');
}
