import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { isForFp8 } from '../../../src/executors/nvidia/library/fp8-products.ts';
import { narrowed } from '../../../src/executors/nvidia/narrowing.ts';
import { partition } from '../../../src/executors/nvidia/plain/partition.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { quantised } from '../../../src/executors/nvidia/quantising.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { e4m3ToF32, f32ToE4m3 } from '../../../src/tensor/float8.ts';
import { attention, gelu, layerNorm, matmul } from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { fromFloat32, toFloat32 } from '../../../src/tensor/host-tensor.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import { type Node, operandsOf, resultsOf, type Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { type ConformanceCase, cases } from '../cases.ts';
import { difference, evaluate, forwardGraph, inputValues } from '../comparison.ts';
import { fp8Cases, fp8Tolerance } from '../fp8-cases.ts';
import { nnCases } from '../nn-cases.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import {
  type Generator,
  kernelsOf,
  planStandIn,
  runStandIn,
  type StandInProgram,
} from './stand-in/stand-in-executor.ts';

const products: readonly Node['op'][] = ['matmul', 'attention', 'attentionGradient', 'convolution'];
const takes = ({ op }: Node) => products.includes(op);

/** Whatever is a linear layer or attention over whole rows, of any size. */
function anySize(node: Node, isRead: (tensor: Tensor) => boolean): boolean {
  if (node.op === 'matmul') {
    const [x, w] = node.operands;
    const { transposeA, transposeB } = node.attributes;
    return !transposeA && transposeB && w.rank === 2 && x.dtype === 'f32' && x.shape.at(-1)! > 0;
  }
  return node.op === 'attention' && node.operands[3] === undefined && !isRead(resultsOf(node)[1]!);
}

function quantisedFunction(
  build: (...x: Tensor[]) => readonly Tensor[],
  shapes: readonly Shape[],
  quantises = anySize,
) {
  const types = shapes.map((shape) => ({ shape, dtype: 'f32' as const }));
  const { graph } = trace('test', (...x: Tensor[]) => [...build(...x)], ...types);
  const scaled = quantised(prepare(graph), quantises);
  const narrow = narrowed(scaled.graph, takes, () => false, scaled.products);
  const stages = fusedPartition(narrow.graph, { takes, storage: narrow.storage });
  const stored = (op: Node['op']) =>
    narrow.graph.nodes
      .filter((node) => node.op === op)
      .map((node) => [...operandsOf(node), resultsOf(node)[0]!].map(narrow.storage).join(' '));
  const kernels = stages.flatMap((stage) =>
    stage.kind === 'kernel' ? [stage.outputs.map(narrow.storage).join(' ')] : [],
  );
  return { scaled, stages, stored, kernels };
}

const linear = (x: Tensor, w: Tensor, b: Tensor) => matmul(x, w, { transposeB: true }).add(b);

describe('the precision fp8', () => {
  it('scales and writes a row in the kernel that makes it', () => {
    const { stored, kernels, stages } = quantisedFunction(
      (x, w, b, v) => [linear(gelu(linear(layerNorm(x!), w!, b!)), v!, b!)],
      [[64, 32], [32, 32], [32], [32, 32]],
    );
    expect(stored('matmul')).toEqual(['f8e4m3 f8e4m3 bf16', 'f8e4m3 f8e4m3 f32']);
    // Gelu is computed before the row's largest value is known, and kept until it is.
    const [source] = stages.flatMap((stage) =>
      stage.kind === 'kernel' && stage.kernel.source.includes('sigmoid(') ? [stage.kernel.source] : [],
    );
    expect(source!.match(/sigmoid\(/g)).toHaveLength(1);
    expect(source).toContain('store8(y');
    // The weights and the norm; gelu; the result.
    expect(kernels.sort()).toEqual(['f32', 'f32 f8e4m3', 'f32 f8e4m3', 'f32 f8e4m3', 'f32 f8e4m3']);
  });

  it('scales what several products read once', () => {
    const { stored, kernels } = quantisedFunction(
      (x, w, v, b) => [linear(x!, w!, b!).mul(linear(x!, v!, b!))],
      [[64, 32], [32, 32], [32, 32], [32]],
    );
    expect(stored('matmul')).toHaveLength(2);
    expect(kernels.filter((outputs) => outputs.includes('f8e4m3'))).toHaveLength(3);
  });

  it('has the product behind attention read its result as it is', () => {
    const { stored, stages } = quantisedFunction(
      (x, w, v, b) => {
        const [q, k, values] = [0, 1, 2].map((part) =>
          linear(x!, w!, b!)
            .slice(-1, 32 * part, 32 * part + 32)
            .reshape([1, 32, 2, 16]),
        ) as [Tensor, Tensor, Tensor];
        return [linear(attention(q, k, values).reshape([1, 32, 32]), v!, b!.slice(0, 0, 32))];
      },
      [[1, 32, 32], [96, 32], [32, 32], [96]],
    );
    expect(stored('attention')).toEqual(['f8e4m3 f8e4m3 f8e4m3 f8e4m3']);
    // What values have in common is added behind the product, in bf16.
    expect(stored('matmul').slice(-2).sort()).toEqual(['bf16 bf16 f32', 'f8e4m3 f8e4m3 f32']);
    const isOfAttention = ({ node }: Tensor) => node.op === 'attention';
    for (const stage of stages)
      if (stage.kind === 'kernel') expect(stage.inputs.some(isOfAttention)).toBe(false);
  });

  it('leaves a graph with gradients as it is', () => {
    const build = (x?: Tensor, w?: Tensor, b?: Tensor) => {
      const loss = linear(x!, w!, b!).square().mean();
      return [loss, ...gradients(loss, [w!, b!])];
    };
    const { scaled, stored } = quantisedFunction(build, [[64, 32], [32, 32], [32]]);
    expect(scaled.products.size).toBe(0);
    expect(stored('matmul').join()).not.toContain('f8e4m3');
  });

  it('is for large linear layers with weights from outside, and attention over many keys', () => {
    const count = (build: (...x: Tensor[]) => readonly Tensor[], ...shapes: Shape[]) =>
      quantisedFunction(build, shapes, isForFp8).scaled.products.size;
    const product = (x?: Tensor, w?: Tensor) => [matmul(x!, w!, { transposeB: true })];
    expect(count(product, [2, 512, 256], [272, 256])).toBe(1);
    expect(count(product, [1, 1023, 256], [272, 256])).toBe(0);
    expect(count(product, [1, 1024, 64], [272, 64])).toBe(0);
    expect(count(product, [1, 1024, 256], [264, 256])).toBe(0);
    expect(count((x, w) => product(x!, w!.mul(2)), [1, 1024, 256], [272, 256])).toBe(0);
    const attend = (q?: Tensor, k?: Tensor, v?: Tensor) => [attention(q!, k!, v!)];
    const shapes = (keys: number, size: number): Shape[] => [
      [1, 1024, 2, size],
      [1, keys, 2, size],
      [1, keys, 2, size],
    ];
    expect(count(attend, ...shapes(1024, 64))).toBe(1);
    expect(count(attend, ...shapes(1030, 128))).toBe(1);
    expect(count(attend, ...shapes(512, 128))).toBe(0);
    expect(count(attend, ...shapes(1024, 96))).toBe(0);
  });
});

const reason = missingCompiler();
const fused: Generator = { prepare, partition: fusedPartition };

const tables: Readonly<Record<string, readonly ConformanceCase[]>> = {
  ...cases,
  ...nnCases,
  fp8: fp8Cases({ tokens: 48, headSize: 16 }),
};

describe.skipIf(reason !== undefined).each(Object.entries({ fused, plain: { partition } }))(
  `fp8 on the CPU, %s${reason === undefined ? '' : `: ${reason}`}`,
  (_, generator) => {
    const rows = Object.entries(tables).flatMap(([table, list]) =>
      list.flatMap((row) => {
        const graph = forwardGraph(row);
        const plan = planStandIn(
          graph,
          { ...generator, isNarrow: true, quantises: anySize },
          [],
          ['attention'],
        );
        return readsF8(plan) ? [{ label: `${table}/${row.name}`, row, graph, plan }] : [];
      }),
    );
    const reference = new ReferenceExecutor();
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      compiled = await CpuKernels.compile(
        prelude,
        rows.flatMap(({ plan }) => kernelsOf(plan)),
      );
    }, 120_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it('has cases of layers and attention', () => expect(rows.length).toBeGreaterThan(10));

    it.each(rows)('$label', async ({ label, row, graph, plan }) => {
      const values = row.inputs.map((input, index) => inputValues(input, `${label}.${index}`));
      const expected = await evaluate(reference, graph, values);
      const found = runStandIn(plan, compiled!, values);
      expected.forEach((tensor, index) => {
        // Errors of layers that are looser in other precisions add up as roots.
        const wrong = difference(found[index]!, tensor, fp8Tolerance * Math.sqrt(row.looseness ?? 1));
        expect(wrong, graph.outputNames[index]!).toBeUndefined();
      });
    });
  },
);

/** Whether a product of a planned graph reads f8e4m3. */
function readsF8({ stages, storage }: StandInProgram): boolean {
  return stages.some(
    (stage) => stage.kind === 'library' && operandsOf(stage.node).map(storage).includes('f8e4m3'),
  );
}

/** A row as f8e4m3 and a scale, and back, in the arithmetic of float32. */
function throughE4m3(row: Float32Array): Float32Array {
  const part = Math.fround(1 / 448);
  const parts = row.map((value) => Math.fround(Math.abs(value) * part));
  const scale = parts.some(Number.isNaN) ? Number.NaN : Math.max(...parts);
  const inverse = Math.fround(1 / Math.max(scale, Math.fround(1e-33)));
  return e4m3ToF32(f32ToE4m3(row.map((value) => value * inverse))).map((value) => value * scale);
}

/** Rows of special values and of random ones. */
function rowsOf(width: number): Float32Array[] {
  const random = Float32Array.from({ length: width }, (_, i) => Math.sin(i * i + 0.1) * 3 ** Math.sin(7 * i));
  const withOne = (value: number) => random.map((other, i) => (i === width - 1 ? value : other));
  return [
    random,
    new Float32Array(width),
    random.map((value) => value * 1e-20),
    random.map((value) => value * 1e25),
    withOne(300),
    withOne(Number.NaN),
    withOne(Number.POSITIVE_INFINITY),
    withOne(-0),
    random.map((value) => Math.round(8 * value) / 8),
  ];
}

describe.skipIf(reason !== undefined)('rows as f8e4m3', () => {
  // Weights of one 1 in each row pick values: all of a short row, some of a long one and its last.
  const widths = [16, 23, 24, 250, 256, 1152, 8960, 9000, 12_288];
  const planned = widths.flatMap((width) =>
    Object.entries({ fused: fusedPartition, plain: partition }).map(([name, cut]) => {
      const count = Math.min(width, 32);
      const rows = rowsOf(width);
      const types = [[rows.length, width] as Shape, [count, width] as Shape].map((shape) => ({
        shape,
        dtype: 'f32' as const,
      }));
      const { graph } = trace(
        `${width}`,
        (x, w) => [matmul(x, w, { transposeB: true })],
        ...(types as [(typeof types)[0], (typeof types)[0]]),
      );
      const plan = planStandIn(graph, { partition: cut, isNarrow: true, quantises: anySize });
      return { label: `${width} wide, ${name}`, width, count, rows, plan };
    }),
  );
  let compiled: CpuKernels | undefined;
  beforeAll(async () => {
    compiled = await CpuKernels.compile(
      prelude,
      planned.flatMap(({ plan }) => kernelsOf(plan)),
    );
  }, 120_000);
  afterAll(() => compiled?.[Symbol.dispose]());

  it.each(planned)('$label', ({ width, count, rows, plan }) => {
    const picked = Array.from({ length: count }, (_, i) => (i === count - 1 ? width - 1 : (i * 37) % width));
    const weights = new Float32Array(count * width);
    picked.forEach((place, i) => {
      weights[i * width + place] = 1;
    });
    const values = new Float32Array(rows.length * width);
    rows.forEach((row, i) => {
      values.set(row, i * width);
    });
    const [found] = runStandIn(plan, compiled!, [
      fromFloat32('f32', [rows.length, width], values),
      fromFloat32('f32', [count, width], weights),
    ]);
    const products = toFloat32(found!);
    rows.forEach((row, i) => {
      const own = products.subarray(i * count, (i + 1) * count);
      // A product with a NaN in it is one; an infinite value makes its row NaN.
      if (row.some((value) => !Number.isFinite(value))) {
        expect([...own]).toEqual(new Array(count).fill(Number.NaN));
        return;
      }
      const expected = throughE4m3(row);
      const largest = Math.max(...row.map(Math.abs));
      picked.forEach((place, j) => {
        expect(Math.abs(own[j]! - expected[place]!)).toBeLessThanOrEqual(1e-6 * largest);
      });
    });
  });
});
