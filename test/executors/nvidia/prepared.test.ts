import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inputsOf } from '../../../src/executors/executor.ts';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { type PreparedStep, PreparedValues } from '../../../src/executors/nvidia/prepared.ts';
import { transformerBlock, transformerBlockSpec } from '../../../src/nn/transformer-block.ts';
import { concat } from '../../../src/tensor/functions.ts';
import type { TensorType } from '../../../src/tensor/shape.ts';
import type { Node } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { f32 } from '../cases.ts';
import { difference, inputValues } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { kernelsOf, planStandIn, runStandIn } from './stand-in/stand-in-executor.ts';

/** A block, its weights fixed. */
function blockGraph() {
  const angles: TensorType = { shape: [1, 24, 8], dtype: 'f32' };
  const { graph, parameters } = trace(
    'block',
    (p, x, context, layout) => [transformerBlock(p, x, layout, undefined, context)],
    transformerBlockSpec({ width: 32, headSize: 16, hidden: 48, context: 24 }),
    f32([2, 24, 32]),
    f32([2, 8, 24]),
    { cos: angles, sin: angles },
  );
  return { graph, fixed: inputsOf(parameters, 0) };
}

const isLinear = (node: Node) =>
  node.op === 'matmul' && node.attributes.transposeB && node.operands[1].rank === 2;

const precisions = {
  bf16: { prepare, isNarrow: true, partition: fusedPartition },
  fp8: { prepare, isNarrow: true, partition: fusedPartition, quantises: isLinear },
} as const;

function plansOf(precision: keyof typeof precisions) {
  const { graph, fixed } = blockGraph();
  const plan = (given: readonly number[]) =>
    planStandIn(graph, precisions[precision], [], ['attention'], undefined, undefined, given);
  return { graph, fixed, plain: plan([]), once: plan(fixed) };
}

describe.each(['bf16', 'fp8'] as const)('what is made of fixed weights, %s', (precision) => {
  const { fixed, plain, once } = plansOf(precision);

  it('is no part of a run, and lies in no memory that other things take', () => {
    expect(plain.program.prepared).toEqual([]);
    const { prepared, steps, arenaBytes } = once.program;
    expect(prepared.length).toBeGreaterThan(0);
    expect(steps.length).toBeLessThanOrEqual(plain.program.steps.length);
    const copies = prepared.filter(({ kernel }) => kernel.name.startsWith('copies'));
    expect(copies.every(({ reads, writes }) => reads.length === 1 && writes.length === 1)).toBe(true);
    const makes = precision === 'bf16' ? ['copies'] : ['rows'];
    expect([...new Set(prepared.map(({ kernel }) => kernel.name.split('_')[0]))]).toEqual(
      expect.arrayContaining(makes),
    );
    expect(arenaBytes).toBeLessThan(plain.program.arenaBytes);
  });

  it('leaves no kernel in a run that reads weights alone', () => {
    const isFixed = new Set(fixed);
    const idle = once.program.steps.filter(
      ({ work, reads }) =>
        work.kind === 'kernel' && reads.every((read) => read.kind === 'input' && isFixed.has(read.index)),
    );
    expect(idle).toEqual([]);
  });

  it('is none where the weights are donated', () => {
    const { graph } = blockGraph();
    const donated = planStandIn(
      graph,
      precisions[precision],
      fixed,
      ['attention'],
      undefined,
      undefined,
      fixed,
    );
    expect(donated.program.prepared).toEqual([]);
  });
});

it('a value that two kernels write in parts is made in every run', () => {
  const type = f32([8, 8]);
  const { graph } = trace('parts', (a, b) => [concat([a.exp(), b.sin()], 1)], type, type);
  const { program } = planStandIn(graph, precisions.bf16, [], [], undefined, undefined, [0, 1]);
  expect(program.prepared).toEqual([]);
  expect(program.steps.length).toBeGreaterThan(0);
});

describe('prepared values', () => {
  const kernel = (name: string) => ({
    name,
    source: '',
    grid: [1, 1, 1] as const,
    block: [1, 1, 1] as const,
    sharedBytes: 0,
  });
  const step = (name: string, reads: PreparedStep['reads'], writes: readonly number[]): PreparedStep => ({
    kernel: kernel(name),
    reads,
    writes,
    inPlace: [],
  });
  const input = (index: number) => ({ kind: 'input', index }) as const;
  const value = (number: number) => ({ kind: 'value', value: number }) as const;

  /** @param most blocks that there is memory for. */
  function start(most = Number.POSITIVE_INFINITY) {
    const [held, launched]: [Map<bigint, number>, string[]] = [new Map(), []];
    let next = 0n;
    const memory = {
      allocate: (bytes: number) => {
        if (held.size >= most) throw new Error('no memory');
        next += 512n;
        held.set(next, bytes);
        return next;
      },
      release: (address: bigint) => held.delete(address),
    };
    const bind = (one: { readonly name: string }, addresses: readonly bigint[]) => () =>
      launched.push(`${one.name} ${addresses.join(' ')}`);
    return { values: new PreparedValues({ memory } as never, { bind } as never), held, launched };
  }
  const program = {
    prepared: [step('copy', [input(1)], [4]), step('sum', [value(4), input(0)], [2, 3])],
    bytes: [0, 0, 8, 16, 32],
  };
  const given = (...ids: number[]) => ids.map((id) => ({ id, address: BigInt(1000 * (id + 1)) }));

  it('are made once for all that need the same of the same buffers', () => {
    const { values, held, launched } = start();
    const first = values.take(program, given(0, 1));
    expect(launched).toEqual(['copy 2000 512', 'sum 512 1000 1024 1536']);
    expect([...first.addresses]).toEqual([
      [4, 512n],
      [2, 1024n],
      [3, 1536n],
    ]);
    const other = { prepared: [step('copy', [input(0)], [0])], bytes: [32] };
    const second = values.take(other, given(1));
    expect([...second.addresses]).toEqual([[0, 512n]]);
    expect(launched).toHaveLength(2);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    expect([...held.keys()]).toEqual([512n]);
    second[Symbol.dispose]();
    expect(held.size).toBe(0);
  });

  it('are made anew of other buffers, though they lie at the same place', () => {
    const { values, launched } = start();
    const [one] = given(7);
    const copy = { prepared: [step('copy', [input(0)], [0])], bytes: [32] };
    const addresses = [one!, { ...one!, id: 8 }].map((buffer) =>
      values.take(copy, [buffer]).addresses.get(0),
    );
    expect(new Set(addresses).size).toBe(2);
    expect(launched).toHaveLength(2);
  });

  it('are made anew by another kernel, and where the second of two buffers is another', () => {
    const { values, held } = start();
    const of = (name: string, ...ids: number[]) =>
      values.take({ prepared: [step(name, [input(0), input(1)], [0])], bytes: [32] }, given(...ids));
    const taken = [of('sum', 1, 2), of('product', 1, 2), of('sum', 1, 3), of('sum', 1, 2)];
    const places = taken.map(({ addresses }) => addresses.get(0));
    expect(new Set(places).size).toBe(3);
    expect(places[3]).toBe(places[0]);
    for (const one of taken) one[Symbol.dispose]();
    expect(held.size).toBe(0);
  });

  it('leave nothing behind where memory ends', () => {
    const { values, held } = start(2);
    expect(() => values.take(program, given(0, 1))).toThrow('no memory');
    expect(held.size).toBe(0);
  });

  it('are given back where one of them cannot be made', () => {
    const { values, held } = start();
    const failing = { prepared: [...program.prepared, step('copy', [input(9)], [1])], bytes: program.bytes };
    expect(() => values.take(failing, given(0, 1))).toThrow();
    expect(held.size).toBe(0);
  });
});

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `fixed weights on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const rows = (['bf16', 'fp8'] as const).map((precision) => ({ precision, ...plansOf(precision) }));
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      const all = rows.flatMap(({ plain, once }) => [plain, once]);
      compiled = await CpuKernels.compile(prelude, all.flatMap(kernelsOf));
    }, 60_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it.each(rows)('$precision gives the same as without', ({ graph, plain, once }) => {
      const values = graph.inputs.map(({ shape }, index) => inputValues(f32(shape), `block.${index}`));
      const [expected, found] = [plain, once].map((plan) => runStandIn(plan, compiled!, values));
      expect(difference(found![0]!, expected![0]!, 0)).toBeUndefined();
    });
  },
);
