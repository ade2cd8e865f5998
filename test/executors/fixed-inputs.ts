import { disposeAll, type Executable, type Executor } from '../../src/executors/executor.ts';
import { linear, linearSpec } from '../../src/nn/linear.ts';
import { gelu } from '../../src/tensor/functions.ts';
import { at } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';
import { f32 } from './cases.ts';
import { difference, inputValues } from './comparison.ts';

/**
 * What is wrong where weights are fixed, against the same executor without that; undefined: nothing. Two executables of different
 * sizes run with the same weights, with others that may lie where those were, and one after the other is gone.
 * @param sizes of the smaller one: 1024 and 256 are enough for every precision to take its products as large ones.
 */
export async function problemOfFixedInputs(
  executor: Executor,
  tolerance: number,
  [rows, width]: readonly [rows: number, width: number],
): Promise<string | undefined> {
  const problems: string[] = [];
  const [small, large] = [await pairOf(executor, rows, width), await pairOf(executor, rows + 16, width)];
  const upload = (rows: number, columns: number, name: string) =>
    executor.upload(inputValues(f32(columns === 0 ? [rows] : [rows, columns]), name));
  const weights = (name: string) => [
    upload(width, width, `${name}.0`),
    upload(width, 0, `${name}.1`),
    upload(width, width, `${name}.2`),
    upload(width, 0, `${name}.3`),
  ];
  const check = async (
    what: string,
    { rows: count, fixed, plain }: Pair,
    given: ReturnType<typeof weights>,
  ) => {
    using x = upload(count, width, `${what}.x`);
    const run = async (executable: Executable) => {
      const outputs = await executor.run(executable, [...given, x]);
      const values = await executor.download(at(outputs, 0));
      disposeAll([...outputs]);
      return values;
    };
    const problem = difference(await run(fixed), await run(plain), tolerance);
    if (problem !== undefined) problems.push(`${what}: ${problem}`);
  };
  const first = weights('first');
  await check('first weights', small, first);
  await check('first weights again', small, first);
  await check('first weights, other size', large, first);
  disposeAll(first);
  const second = weights('second');
  await check('second weights', small, second);
  await check('second weights, other size', large, second);
  small.fixed[Symbol.dispose]();
  await check('second weights, the other gone', large, second);
  disposeAll(second);
  for (const one of [small.plain, large.plain, large.fixed]) one[Symbol.dispose]();
  return problems.length === 0 ? undefined : problems.join('; ');
}

interface Pair {
  readonly rows: number;
  readonly fixed: Executable;
  readonly plain: Executable;
}

async function pairOf(executor: Executor, rows: number, width: number): Promise<Pair> {
  const spec = { up: linearSpec(width, width), down: linearSpec(width, width) };
  const { graph } = trace(
    'fixed inputs',
    (p, x) => [linear(p.down, gelu(linear(p.up, x)))],
    spec,
    f32([rows, width]),
  );
  const fixed = await executor.compile(graph, { fixed: [0, 1, 2, 3] });
  return { rows, fixed, plain: await executor.compile(graph) };
}
