import { describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import type { Stage } from '../../../src/executors/nvidia/kernel.ts';
import {
  concat,
  gelu,
  layerNorm,
  matmul,
  pad,
  rmsNorm,
  rotary,
  softmax,
} from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { makeGraph } from '../../../src/tensor/graph.ts';
import { inlineCalls } from '../../../src/tensor/rewrite.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import { type Graph, operandsOf, resultsOf, type Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import type { Op } from '../../../src/tensor/vocabulary.ts';
import { adamW } from '../../../src/training/optimizer.ts';
import { cases } from '../cases.ts';
import { graphOf, halvesOf } from '../comparison.ts';
import { nnCases } from '../nn-cases.ts';

const libraries: readonly Op[] = [
  'matmul',
  'convolution',
  'convolutionInputGradient',
  'convolutionKernelGradient',
];

function stagesOf(graph: Graph): readonly Stage[] {
  const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
  return fusedPartition(prepare(inlined), { takes: ({ op }) => libraries.includes(op) });
}

function stages(build: (...x: Tensor[]) => readonly Tensor[], ...shapes: readonly Shape[]): readonly Stage[] {
  const types = shapes.map((shape) => ({ shape, dtype: 'f32' as const }));
  return stagesOf(trace('test', (...x: Tensor[]) => [...build(...x)], ...types).graph);
}

function kernels(build: (...x: Tensor[]) => readonly Tensor[], ...shapes: readonly Shape[]) {
  return stages(build, ...shapes).flatMap((stage) => (stage.kind === 'kernel' ? [stage.kernel] : []));
}

function made(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.outputs;
    case 'library':
      return resultsOf(stage.node);
    default:
      return [stage.output];
  }
}

function read(stage: Stage): readonly Tensor[] {
  switch (stage.kind) {
    case 'kernel':
      return stage.inputs;
    case 'library':
      return operandsOf(stage.node);
    case 'view':
      return [stage.input];
    case 'constant':
      return [];
  }
}

describe('fused kernels', () => {
  it('read only what every kernel that makes a part of it has written', () => {
    for (const rows of Object.values({ ...cases, ...nnCases }))
      for (const row of rows)
        for (const half of halvesOf(row)) {
          const all = stagesOf(graphOf(row, half));
          const last = new Map<Tensor, number>();
          all.forEach((stage, index) => {
            for (const tensor of made(stage)) last.set(tensor, index);
          });
          all.forEach((stage, index) => {
            for (const tensor of read(stage)) {
              const maker = tensor.node.op === 'input' ? -1 : last.get(tensor);
              expect(maker, `${row.name}: ${tensor.node.op}`).toBeLessThan(index);
            }
            if (stage.kind !== 'kernel') return;
            const { name, source } = stage.kernel;
            expect(source).toContain(`void ${name}(`);
            expect(new Set(stage.outputs.map(({ node, index: i }) => `${node.id}.${i}`)).size).toBe(
              stage.outputs.length,
            );
          });
        }
  });

  it('do a residual, its norm and modulation in one pass, rows in registers', () => {
    const found = kernels(
      (x, y, bias, gate, modulation) => {
        const sum = x!.add(y!.add(bias!).mul(gate!));
        const [shift, scale] = modulation!.split(-1, [64, 64]);
        return [sum, layerNorm(sum).mul(scale!.add(1)).add(shift!)];
      },
      [2, 8, 64],
      [2, 8, 64],
      [64],
      [2, 8, 64],
      [2, 8, 128],
    );
    expect(found).toHaveLength(1);
    expect(found[0]!.source).toMatchSnapshot();
  });

  it('do the backward pass of a norm in one, with the sums of columns', () => {
    const found = kernels(
      (x, weight, bias, dy) => {
        const y = layerNorm(x!).mul(weight!).add(bias!);
        return gradients(y.mul(dy!).sum(), [x!, weight!, bias!]);
      },
      [64, 32],
      [32],
      [32],
      [64, 32],
    );
    expect(found.map(({ name }) => name.replace(/_\w{16}$/, ''))).toEqual(['rows', 'join_columns']);
    expect(found[0]!.source).toMatchSnapshot();
  });

  it('declare no more shared memory than a kernel may, however wide the rows', () => {
    for (const width of [1024, 1536, 2048, 4096]) {
      const found = kernels((x) => [x!.sum([1]), x!.sum([0])], [512, width]);
      for (const { source } of found)
        for (const [, count] of source.matchAll(/__shared__ float \w+\[(\d+)\]/g))
          expect(4 * Number(count), `rows of ${width}`).toBeLessThanOrEqual(48 * 1024);
    }
  });

  it('leave paddings alone that the sum repeats', () => {
    const padded = (x: Tensor, before: number, after: number) =>
      pad(x, [
        [0, 0],
        [before, after],
      ]);
    const found = stages((x, y) => [padded(x!, 0, 2).add(padded(y!, 2, 0))], [1, 2], [3, 2]);
    expect(found.flatMap(made).map(({ shape }) => shape)).toContainEqual([3, 4]);
  });

  it('turn and norm the heads of queries and keys, cut out of one product', () => {
    const found = kernels(
      (x, cos, sin, scale) =>
        x!
          .split(-1, [32, 32])
          .map((part) => rotary(rmsNorm(part.reshape([2, 8, 2, 16])).mul(scale!), cos!, sin!)),
      [2, 8, 64],
      [1, 8, 8],
      [1, 8, 8],
      [16],
    );
    expect(found.length).toBeLessThanOrEqual(2);
  });

  it('write each part of a concatenation where it is made', () => {
    const found = stages(
      (x, y) => [matmul(concat([gelu(x!), softmax(y!)], -1), concat([x!, y!], -1), { transposeB: true })],
      [16, 32],
      [16, 64],
    );
    const parts = found.filter((stage) => made(stage).some(({ shape }) => shape[1] === 96));
    expect(parts.length).toBeGreaterThanOrEqual(2);
  });

  it('join the gradients of slices without adding zeros', () => {
    const found = stages(
      (x, dy) => [
        pad(x!, [
          [0, 0],
          [0, 8],
        ]).add(
          pad(dy!, [
            [0, 0],
            [8, 0],
          ]),
        ),
      ],
      [16, 8],
      [16, 8],
    );
    // The only condition is that on the last thread.
    for (const stage of found)
      expect(stage.kind === 'kernel' && stage.kernel.source.match(/if \(/g)).toHaveLength(1);
  });

  it('update a parameter and its moments in one pass, in place, whatever its neighbours are', () => {
    const found = stages(
      (p, g, mean, square, rate) => {
        const step = { rate: rate!, epsilon: rate!, keep: rate! };
        const { parameters, state } = adamW(
          { p: p! },
          { p: g! },
          { mean: { p: mean! }, square: { p: square! } },
          step,
          {
            weightDecay: 0.1,
          },
        );
        return [parameters.p, state.mean.p, state.square.p];
      },
      [32, 16],
      [32, 16],
      [32, 16],
      [32, 16],
      [],
    ).filter((stage) => stage.kind === 'kernel' && stage.outputs.length === 3);
    expect(found).toHaveLength(1);
    const [stage] = found;
    const pairs = stage?.kind === 'kernel' ? (stage.kernel.inPlace ?? []) : [];
    expect(new Set(pairs.map(([, output]) => output))).toEqual(new Set([0, 1, 2]));
    expect(stage?.kind === 'kernel' && stage.kernel.source).toMatchSnapshot();
  });

  it('add up whole tensors in two launches, however many there are', () => {
    const shapes: Shape[] = [[64, 64], [100], [7, 3, 5], [4096, 8]];
    const found = kernels((...x) => x.map((one) => one.square().sum()), ...shapes);
    expect(found.map(({ name }) => name.replace(/_\w{16}$/, ''))).toEqual(['totals', 'join_totals']);
  });
});
