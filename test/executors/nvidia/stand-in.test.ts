import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { partition } from '../../../src/executors/nvidia/plain/partition.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { gelu, layerNorm, matmul } from '../../../src/tensor/functions.ts';
import { type ConformanceCase, cases, f32 } from '../cases.ts';
import { difference, evaluate, graphOf, halvesOf, inputValues } from '../comparison.ts';
import { nnCases } from '../nn-cases.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { type Generator, kernelsOf, planStandIn, runStandIn } from './stand-in/stand-in-executor.ts';

/** Ways to make kernels, each with its tolerance: float32 against float64 as on the GPU, or with bf16 in between. */
const generators: Readonly<Record<string, readonly [Generator, number]>> = {
  plain: [{ partition }, 2e-6],
  fused: [{ prepare, partition: fusedPartition }, 2e-6],
  'plain bf16': [{ partition, isNarrow: true }, 1e-2],
  'fused bf16': [{ prepare, partition: fusedPartition, isNarrow: true }, 1e-2],
};
const reason = missingCompiler();

/** Rows too wide for several of them to share a block's memory, as of the preset `xl`. */
const wide: Record<string, readonly ConformanceCase[]> = {
  wide: [
    {
      name: 'sums along rows and columns',
      inputs: [f32([64, 2048])],
      build: (x) => [layerNorm(x!), x!.square().sum([1]), x!.sum([0])],
    },
    // What lies between the products is bf16 where the precision is.
    ...[1152, 4608].map(
      (width): ConformanceCase => ({
        name: `a norm between products, ${width} channels`,
        inputs: [f32([24, 4]), f32([4, width]), f32([width]), f32([width, 4])],
        build: (x, w, b, v) => [matmul(layerNorm(gelu(matmul(x!, w!).add(b!))), v!).mul(width ** -0.5)],
        looseness: 20,
      }),
    ),
  ],
};

describe.skipIf(reason !== undefined).each(Object.entries(generators))(
  `kernels on the CPU, %s${reason === undefined ? '' : `: ${reason}`}`,
  (_, [generator, tolerance]) => {
    const rows = Object.entries({ ...cases, ...nnCases, ...wide }).flatMap(([table, list]) =>
      list.flatMap((row) => halvesOf(row).map((half) => ({ label: `${table}/${row.name}`, row, half }))),
    );
    const planned = rows.map(({ label, row, half }) => {
      const graph = graphOf(row, half);
      // Gradients are as large as inputs, so that many are made in an input's memory.
      const donate = half === 'backward' ? graph.inputs.map((_, index) => index) : [];
      return {
        label: `${label} ${half}`,
        row,
        graph,
        plan: planStandIn(graph, generator, donate),
        name: label,
      };
    });
    const reference = new ReferenceExecutor();
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      compiled = await CpuKernels.compile(
        prelude,
        planned.flatMap(({ plan }) => kernelsOf(plan)),
      );
    }, 120_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it.each(planned)('$label', async ({ name, row, graph, plan }) => {
      const values = row.inputs.map((input, index) => inputValues(input, `${name}.${index}`));
      const expected = await evaluate(reference, graph, values);
      const found = runStandIn(plan, compiled!, values);
      expected.forEach((tensor, index) => {
        const wrong = difference(found[index]!, tensor, tolerance * (row.looseness ?? 1));
        expect(wrong, graph.outputNames[index]!).toBeUndefined();
      });
    });
  },
);
