import { describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import type { Stage } from '../../../src/executors/nvidia/kernel.ts';
import { narrowed, storageReport } from '../../../src/executors/nvidia/narrowing.ts';
import { partition } from '../../../src/executors/nvidia/plain/partition.ts';
import {
  attention,
  concat,
  convolution,
  gelu,
  layerNorm,
  matmul,
  scatterAdd,
} from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { makeGraph } from '../../../src/tensor/graph.ts';
import { inlineCalls } from '../../../src/tensor/rewrite.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import { constant, type Node, operandsOf, resultsOf, type Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';

const products: readonly Node['op'][] = [
  'matmul',
  'convolution',
  'convolutionInputGradient',
  'convolutionKernelGradient',
  'attention',
  'attentionGradient',
];
const takes = ({ op }: Node) => products.includes(op);

function narrowedFunction(
  build: (...x: Tensor[]) => readonly Tensor[],
  shapes: readonly Shape[],
  libraries = takes,
) {
  const types = shapes.map((shape) => ({ shape, dtype: 'f32' as const }));
  const { graph } = trace('test', (...x: Tensor[]) => [...build(...x)], ...types);
  const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
  const narrow = narrowed(prepare(inlined), libraries);
  const stages = fusedPartition(narrow.graph, { takes: libraries, storage: narrow.storage });
  const stored = (op: Node['op']) =>
    narrow.graph.nodes.flatMap((node) =>
      node.op === op
        ? [
            {
              operands: operandsOf(node).map(narrow.storage),
              results: resultsOf(node).map(narrow.storage),
              reasons: resultsOf(node).map(narrow.reason),
            },
          ]
        : [],
    );
  return { ...narrow, stages, stored };
}

function kernels(stages: readonly Stage[]) {
  return stages.flatMap((stage) => (stage.kind === 'kernel' ? [stage] : []));
}

/** Two layers, their loss and what it gives for the weights. */
function training(x: Tensor, w: Tensor, b: Tensor, v: Tensor, rate: Tensor): Tensor[] {
  const h = layerNorm(gelu(matmul(x.mul(0.5).exp(), w).add(b)));
  const loss = matmul(h, v).square().mean();
  return [loss, ...gradients(loss, [w, b, v]).map((g, i) => [w, b, v][i]!.sub(g.mul(rate)))];
}

const shapes: readonly Shape[] = [[64, 32], [32, 48], [48], [48, 32], []];

describe('the precision bf16', () => {
  const step = narrowedFunction(training as (...x: Tensor[]) => Tensor[], shapes);

  it('gives every product bf16, and takes gradients of weights and losses from them in f32', () => {
    const found = step.stored('matmul');
    for (const { operands } of found) expect(operands).toEqual(['bf16', 'bf16']);
    expect(found.map(({ results, reasons }) => `${results} ${reasons}`).sort()).toEqual([
      // What gelu reads, and the gradient behind the second layer.
      'bf16 activation',
      'bf16 activation',
      // What the loss reads, and the gradients of w and v.
      'f32 output',
      'f32 output',
      'f32 output',
    ]);
  });

  it('copies weights once, all in one launch', () => {
    const copies = kernels(step.stages).filter(({ kernel }) => kernel.name.startsWith('copies'));
    expect(copies).toHaveLength(1);
    expect(copies[0]!.inputs.map(({ shape }) => shape)).toEqual([
      [32, 48],
      [48, 32],
    ]);
    expect(copies[0]!.outputs.map(step.storage)).toEqual(['bf16', 'bf16']);
  });

  it('keeps sums in f32, and no other tensor as large as the tokens', () => {
    for (const { outputs } of kernels(step.stages))
      for (const tensor of outputs) {
        if (tensor.node.op === 'sum') expect(step.storage(tensor)).toBe('f32');
        if (tensor.shape[0] === 64 && tensor.shape[1]! > 1) expect(step.storage(tensor)).toBe('bf16');
      }
    const lines = storageReport(step.stages, step);
    expect(lines.find(({ reason }) => reason === 'activation')).toMatchObject({ dtype: 'bf16' });
    expect(lines.find(({ reason }) => reason === 'statistic')).toMatchObject({ dtype: 'f32' });
  });

  it('computes in f32 and moves 16 bytes at a time', () => {
    const [wide] = kernels(step.stages).filter(({ kernel }) => /store8\(y\d/.test(kernel.source));
    expect(wide!.kernel.source).toMatchSnapshot();
    for (const { kernel } of kernels(step.stages)) expect(kernel.source).not.toContain('round_bf16');
  });

  it('gives wide rows a block of their own, whose threads hold few elements each', () => {
    for (const [width, threads] of [
      [1152, 160],
      [1536, 192],
      [4608, 192],
    ] as const) {
      const { stages } = narrowedFunction(training as (...x: Tensor[]) => Tensor[], [
        [64, 8],
        [8, width],
        [width],
        [width, 8],
        [],
      ]);
      const rows = kernels(stages).filter(
        ({ kernel, inputs }) =>
          kernel.name.startsWith('rows') && inputs.some(({ shape }) => shape[0] === 64 && shape[1] === width),
      );
      expect(rows.length).toBeGreaterThan(1);
      for (const { kernel } of rows) {
        expect(kernel.block).toEqual([threads, 1, 1]);
        for (const [, held] of kernel.source.matchAll(/float [am]\d\w*\[(\d+)\]/g))
          expect(Number(held)).toBeLessThanOrEqual(24);
      }
    }
  });

  it('leaves inputs, outputs and what is computed from inputs alone in f32', () => {
    const angles = narrowedFunction(
      (t, w) => {
        const angle = t!.mul(constant([1, 10, 100, 1000]));
        const features = concat([angle.sin(), angle.cos()], -1);
        return [matmul(features, w!), angle.sum([0]), features.reshape([16, 8])];
      },
      [
        [2, 8, 1],
        [8, 8],
      ],
    );
    expect(angles.graph.outputs.map(angles.storage)).toEqual(['f32', 'f32', 'f32']);
    const angle = angles.graph.nodes.find(({ op }) => op === 'mul')!;
    expect(resultsOf(angle).map(angles.storage)).toEqual(['f32']);
    expect(angles.stored('matmul')[0]!.operands).toEqual(['bf16', 'bf16']);
  });

  it('adds up in f32 what is only added up', () => {
    const { stored } = narrowedFunction(
      (x, y) => [matmul(x!, y!, { transposeA: true }).sum([0])],
      [
        [3, 64, 8],
        [3, 64, 8],
      ],
    );
    expect(stored('matmul')[0]!.results).toEqual(['f32']);
  });

  it('gives attention bf16 and keeps its log-sums, without a cast of a gradient in between', () => {
    const build = (x?: Tensor, w?: Tensor) => {
      const heads = (part: Tensor) => part.reshape([1, 32, 2, 16]);
      const [q, k, v] = matmul(x!, w!).split(-1, [32, 32, 32]).map(heads) as [Tensor, Tensor, Tensor];
      const loss = attention(q, k, v).square().sum();
      return [loss, ...gradients(loss, [w!])];
    };
    const sizes: readonly Shape[] = [
      [1, 32, 32],
      [32, 96],
    ];
    const { stored } = narrowedFunction(build, sizes);
    expect(stored('attention')[0]!.results).toEqual(['f32', 'f32']);
    expect(stored('attentionGradient')[0]).toMatchObject({
      operands: ['bf16', 'bf16', 'bf16', 'bf16', 'f32', 'bf16'],
      results: ['bf16', 'bf16', 'bf16'],
    });
    const slow = narrowedFunction(build, sizes, (node) => takes(node) && !/^attention/.test(node.op));
    expect(slow.stored('attentionGradient')[0]!.operands).toEqual(new Array(6).fill('f32'));
    expect(slow.stored('attentionGradient')[0]!.reasons).toEqual(['kernel', 'kernel', 'kernel']);
  });

  it('treats gradients of repetitions as activations, and those of tables as sums', () => {
    const { stored } = narrowedFunction(
      (x, w, table) => {
        const grown = convolution(x!, w!).reshape([1, 8, 1, 8]).broadcastTo([1, 8, 2, 8]);
        const y = convolution(grown.reshape([1, 16, 8]), w!);
        const found = gradients(y.square().mean(), [x!, w!]);
        const rows = scatterAdd(constant([0, 1, 1], [3], 'i32'), matmul(table!, table!), 2);
        return [...found, matmul(rows, table!)];
      },
      [
        [1, 8, 8],
        [8, 1, 8],
        [3, 3],
      ],
    );
    expect(stored('sum').map(({ reasons }) => reasons[0])).toContain('activation');
    expect(stored('scatterAdd')[0]!.results).toEqual(['f32']);
    for (const { operands } of stored('matmul')) expect(operands).toEqual(['bf16', 'bf16']);
  });

  it('reads weights that are given in bf16 where they are', () => {
    const types = [
      { shape: [16, 8], dtype: 'f32' },
      { shape: [8, 8], dtype: 'bf16' },
      { shape: [8], dtype: 'bf16' },
    ] as const;
    const { graph } = trace(
      'test',
      (x, w, b) => {
        const wide = w.cast('f32');
        return [matmul(matmul(x, wide).add(b.cast('f32')), wide.reshape([8, 8])), b.cast('f32')];
      },
      ...types,
    );
    for (const cut of [partition, fusedPartition]) {
      const { graph: narrow, storage } = narrowed(graph, takes);
      const stages = cut(narrow, { takes, storage });
      const views = stages.flatMap((stage) => (stage.kind === 'view' ? [stage.output.node.op] : []));
      expect(views).toEqual(['cast']);
      // x for the first product, its result with the bias for the second, and the bias as an output.
      const made = kernels(stages).map(({ outputs }) => outputs.map(storage).join());
      expect(made.sort()).toEqual(['bf16', 'bf16', 'f32']);
    }
  });

  it('does the same without fusion', () => {
    const stages = partition(step.graph, { takes, storage: step.storage });
    for (const { kernel } of kernels(stages)) expect(kernel.source).toContain('__global__');
    expect(stages.some((stage) => stage.kind === 'kernel' && /const bf16\*/.test(stage.kernel.source))).toBe(
      true,
    );
  });
});
