import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fastestSplits } from '../../../src/executors/nvidia/library/attention-splits.ts';
import { type ConvolutionNode, lowerConvolution } from '../../../src/executors/nvidia/library/convolution.ts';
import type { LibraryCall } from '../../../src/executors/nvidia/library/library-call.ts';
import {
  lowerAttention,
  lowerAttentionGradient,
} from '../../../src/executors/nvidia/library/lower-attention.ts';
import { gemmOfTail, lowerMatmul } from '../../../src/executors/nvidia/library/matmul.ts';
import { TokenBorders } from '../../../src/executors/nvidia/library/token-borders.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import type { Storage } from '../../../src/executors/nvidia/storage.ts';
import { resultsOfTail, tailsOf } from '../../../src/executors/nvidia/tails.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import type { DType } from '../../../src/tensor/dtype.ts';
import { gelu, matmul } from '../../../src/tensor/functions.ts';
import { fromFloat32, type HostTensor, hostTensor, toFloat32 } from '../../../src/tensor/host-tensor.ts';
import { elementCount, type Shape } from '../../../src/tensor/shape.ts';
import { apply, type NodeOf, operandsOf, resultsOf, type Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import type { Op } from '../../../src/tensor/vocabulary.ts';
import { type CaseInput, f32 } from '../cases.ts';
import { difference, evaluate, inputValues } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { HostLibraries, runCall } from './stand-in/host-libraries.ts';

/** A node of inputs alone, and values for them. */
interface Case {
  readonly name: string;
  readonly op: Op;
  readonly inputs: readonly CaseInput[];
  readonly attributes: object;
}

function matmulCase(a: Shape, b: Shape, transposeA = false, transposeB = false): Case {
  const name = `matmul ${a} x ${b}${transposeA ? ', a transposed' : ''}${transposeB ? ', b transposed' : ''}`;
  return { name, op: 'matmul', inputs: [f32(a), f32(b)], attributes: { transposeA, transposeB } };
}

/** A convolution and its two gradients. */
function convolutionCases(x: Shape, kernel: Shape, strides: readonly number[]): Case[] {
  const padding = strides.map((_, axis): [number, number] => (kernel[axis + 1] === 1 ? [0, 0] : [1, 1]));
  const windows = strides.map((stride, axis) =>
    Math.floor((x[axis + 1]! + 2 * padding[axis]![0] - kernel[axis + 1]!) / stride + 1),
  );
  const y = [x[0]!, ...windows, kernel[0]!];
  const geometry = { strides, padding };
  const sizes = { inputSize: x.slice(1, -1), kernelSize: kernel.slice(1, -1) };
  const name = `of ${x} by ${kernel}`;
  return [
    { name: `convolution ${name}`, op: 'convolution', inputs: [f32(x), f32(kernel)], attributes: geometry },
    {
      name: `input gradient ${name}`,
      op: 'convolutionInputGradient',
      inputs: [f32(y), f32(kernel)],
      attributes: { ...geometry, inputSize: sizes.inputSize },
    },
    {
      name: `kernel gradient ${name}`,
      op: 'convolutionKernelGradient',
      inputs: [f32(x), f32(y)],
      attributes: { ...geometry, kernelSize: sizes.kernelSize },
    },
  ];
}

/** Attention and its gradient; the gradient's statistics are made from the other operands. */
function attentionCases(q: Shape, keys: number, segments?: readonly number[]): Case[] {
  const kv = [q[0]!, keys, q[2]!, q[3]!];
  const offsets: readonly CaseInput[] =
    segments === undefined
      ? []
      : [{ shape: [q[0]!, segments.length / q[0]!], dtype: 'i32', source: segments }];
  const name = `of ${q} and ${keys} keys${segments === undefined ? '' : `, packed as ${segments}`}`;
  const statistics = f32([q[0]!, q[2]!, q[1]!]);
  return [
    {
      name: `attention ${name}`,
      op: 'attention',
      inputs: [f32(q), f32(kv), f32(kv), ...offsets],
      attributes: { scale: 0.3 },
    },
    {
      name: `gradient of attention ${name}`,
      op: 'attentionGradient',
      inputs: [f32(q), f32(kv), f32(kv), f32(q), statistics, f32(q), ...offsets],
      attributes: { scale: 0.3 },
    },
  ];
}

/** Attention to so many keys that those beyond whole tiles have a run of their own; all but 200 keys have score 0. */
function manyKeysCases(): Case[] {
  const [q, kv] = [f32([2, 4, 2, 16]), [2, 24_676, 2, 16]];
  const spoken = (name: string): CaseInput => {
    const values = new Array<number>(elementCount(kv)).fill(0);
    const { data } = inputValues(f32([2, 200, 2, 16]), name);
    for (const row of [0, 1])
      for (let i = 0; i < 6400; i++) values[(row + 1) * 24_676 * 32 - 6400 + i] = data[row * 6400 + i]!;
    return { shape: kv, dtype: 'f32', source: values };
  };
  const inputs = [q, spoken('keys'), spoken('values')];
  return [{ name: 'attention to many keys', op: 'attention', inputs, attributes: { scale: 2 } }];
}

const cases: readonly Case[] = [
  matmulCase([3, 5], [5, 4]),
  matmulCase([6, 3, 5], [5, 4]),
  matmulCase([5, 3], [5, 4], true),
  matmulCase([2, 1, 3, 4], [7, 5, 4], false, true),
  matmulCase([3, 0], [0, 4]),
  ...convolutionCases([2, 5, 4, 3], [10, 3, 3, 3], [1, 1]),
  ...convolutionCases([1, 4, 5, 6, 8], [16, 3, 3, 3, 8], [1, 2, 1]),
  ...convolutionCases([2, 3, 4, 4, 8], [8, 1, 3, 3, 8], [1, 1, 1]),
  ...convolutionCases([2, 9, 4], [3, 3, 4], [2]),
  ...convolutionCases([2, 3, 4, 5], [7, 1, 1, 5], [1, 1]),
  ...attentionCases([2, 6, 2, 16], 7),
  ...attentionCases([1, 64, 2, 16], 128),
  ...attentionCases([2, 32, 1, 16], 32, [0, 5, 5, 30, 2, 9, 20, 32]),
  ...attentionCases([1, 9, 2, 16], 9, [0, 4, 7]),
  // The gradient in parts.
  ...attentionCases([1, 2048, 2, 16], 20),
  ...attentionCases([2, 3072, 1, 16], 5),
  ...manyKeysCases(),
];

/** How float tensors lie in memory: all as they are, all narrow, results wide or operands wide. */
const storages: Readonly<Record<string, readonly [operands: DType, results: DType]>> = {
  'all f32': ['f32', 'f32'],
  'all bf16': ['bf16', 'bf16'],
  'bf16 to f32': ['bf16', 'f32'],
  'f32 to bf16': ['f32', 'bf16'],
};

const reason = missingCompiler();

it('whole rows of bf16 tokens are read and written where they are, packed ones only with room for whole tiles', () => {
  const rows = { rows: 2, queries: 13, keys: 9, heads: 3, headSize: 16, segments: undefined, scale: 1 };
  const stored = { q: 'bf16', k: 'bf16', dk: 'f32' } as const;
  const context = new HostLibraries().attention;
  expect(new TokenBorders(context, rows, stored).scratch).toEqual({ q: 0, k: 0, dk: 2 * 2 * 9 * 48 });
  const packed = { ...rows, keys: 13, segments: 1 };
  expect(new TokenBorders(context, packed, stored).scratch.q).toBe(2 * 64 * 48);
});

it('the gradient takes queries in parts where few tiles of keys leave multiprocessors idle', () => {
  const { queryParts } = fastestSplits(132);
  const sizes = (rows: number, queries: number, keys: number, heads: number, segments?: number) =>
    queryParts({ rows, queries, keys, heads, headSize: 128, segments, scale: 1 });
  expect(sizes(1, 16384, 512, 9)).toBe(8);
  expect(sizes(1, 16384, 512, 18)).toBe(8);
  expect(sizes(4, 4096, 512, 9)).toBe(1);
  expect(sizes(1, 4096, 4096, 9)).toBe(1);
  // Long sequences, where tiles are many.
  expect([sizes(1, 16384, 16384, 9), sizes(1, 16376, 16376, 9)]).toEqual([2, 1]);
  expect(sizes(1, 16384, 512, 9, 3)).toBe(1);
  expect(sizes(1, 1024, 512, 9)).toBe(1);
  // Parts of whole tiles of queries.
  expect(sizes(1, 32760, 512, 9)).toBe(1);
  expect(sizes(1, 128 * 7 * 5, 512, 9)).toBe(7);
  // What the cases above are meant for.
  expect([sizes(1, 2048, 20, 2), sizes(2, 3072, 5, 1)]).toEqual([4, 6]);
});

it('attention gives keys beyond whole tiles a run of their own where there are many', () => {
  const { lateKeys } = fastestSplits(132);
  const late = (keys: number, segments?: number) =>
    lateKeys({ rows: 1, queries: 4, keys, heads: 2, headSize: 16, segments, scale: 1 });
  expect([late(32_760), late(32_768), late(32_769), late(4095), late(32_760, 2)]).toEqual([120, 0, 0, 0, 0]);
  // What the case above is meant for.
  expect(late(24_676)).toBe(100);
});

describe.skipIf(reason !== undefined)(
  `library calls on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const libraries = new HostLibraries();
    const rows = cases.flatMap((one) =>
      Object.entries(storages).flatMap(([kind, [operands, results]]) =>
        // cuBLASLt makes f32 of f32 alone; attention is always converted.
        one.op !== 'attention' && one.op !== 'attentionGradient' && kind === 'f32 to bf16'
          ? []
          : [
              { name: `${one.name}, ${kind}`, ...lowered(one, operands, results) },
              ...(one.op.startsWith('convolution')
                ? [{ name: `${one.name}, ${kind}, no engine`, ...lowered(one, operands, results, false) }]
                : []),
            ],
      ),
    );
    beforeAll(async () => {
      libraries.compiled = await CpuKernels.compile(
        prelude,
        rows.flatMap(({ call }) => call.kernels),
      );
    }, 60_000);
    afterAll(() => libraries.compiled?.[Symbol.dispose]());

    function lowered(one: Case, operands: DType, results: DType, hasEngines = true) {
      const { graph } = trace(
        one.name,
        (...x: Tensor[]) => [...apply(one.op as 'matmul', x as never, one.attributes as never)],
        ...one.inputs,
      );
      const node = graph.outputs[0]!.node;
      const own = new Set(resultsOf(node).map(({ index }) => index));
      const isStatistic = (tensor: Tensor) =>
        (node.op === 'attention' && tensor.node === node && tensor.index === 1) ||
        (node.op === 'attentionGradient' && operandsOf(node)[4]?.node === tensor.node);
      const storage: Storage = (tensor) => {
        if (tensor.dtype !== 'f32' || isStatistic(tensor)) return tensor.dtype;
        return tensor.node === node && own.has(tensor.index) ? results : operands;
      };
      const { convolution, attention } = libraries;
      const lower = (): LibraryCall => {
        switch (node.op) {
          case 'matmul':
            return lowerMatmul(convolution.device, convolution.gemm, node, storage);
          case 'attention':
            return lowerAttention(attention, node, storage);
          case 'attentionGradient':
            return lowerAttentionGradient(attention, node, storage);
          default:
            return lowerConvolution(
              hasEngines ? convolution : { ...convolution, cudnn: undefined },
              node as unknown as ConvolutionNode,
              storage,
            );
        }
      };
      return { graph, node: node as NodeOf<'matmul'>, storage, call: lower(), one };
    }

    it.each(rows)('$name', async ({ graph, node, storage, call, one }) => {
      const values = one.inputs.map((input, index) => rounded(inputValues(input, `${one.name}.${index}`)));
      if (one.op === 'attentionGradient') await makeStatistics(values, one);
      const expected = await evaluate(new ReferenceExecutor(), graph, values);
      const operands = values.map((tensor, index) => stored(tensor, storage(operandsOf(node)[index]!)));
      const types = resultsOf(node).map((tensor) => ({ shape: tensor.shape, dtype: storage(tensor) }));
      const found = runCall(call, operands, types);
      expected.forEach((tensor, index) => {
        const widened = stored(found[index]!, 'f32');
        expect(difference(widened, tensor, 1e-2), `result ${index}`).toBeUndefined();
      });
    });
  },
);

/** What a product's call does to the sums: outputs of the graph, as the call makes them. */
const tails: Readonly<Record<string, (sum: Tensor) => readonly Tensor[]>> = {
  bias: (sum) => [sum],
  'bias and gelu': (sum) => [gelu(sum)],
  'bias and gelu, the sum kept': (sum) => [gelu(sum), sum],
};

describe('products with a tail on the CPU', () => {
  const { convolution } = new HostLibraries();
  const rows = Object.entries(tails).flatMap(([name, results]) =>
    (['f32', 'bf16'] as const).flatMap((dtype) =>
      [8, 5].map((columns) => ({ name: `${name}, ${columns} columns, ${dtype}`, results, dtype, columns })),
    ),
  );
  it.each(rows)('$name', async ({ name, results, dtype, columns }) => {
    const inputs = [f32([2, 3, 4]), f32([columns, 4]), f32([columns])];
    const { graph } = trace(
      name,
      (x: Tensor, w: Tensor, b: Tensor) => [...results(matmul(x, w, { transposeB: true }).add(b))],
      ...(inputs as [CaseInput, CaseInput, CaseInput]),
    );
    const storage: Storage = () => dtype;
    const [tail] = tailsOf(graph, ({ op }) => op === 'matmul');
    const [product, made] = [tail!.product, resultsOfTail(tail!)];
    expect(made).toHaveLength(graph.outputs.length);
    if (tail!.keepsSum && columns % 8 !== 0) {
      expect(gemmOfTail(tail!, storage)).toBeUndefined();
      return;
    }
    const { device, gemm } = convolution;
    const call = lowerMatmul(device, gemm, product, storage, tail);
    const values = inputs.map((input, index) => rounded(inputValues(input, `${name}.${index}`)));
    const types = made.map(({ shape }) => ({ shape, dtype }));
    const found = runCall(
      call,
      values.map((value) => stored(value, dtype)),
      types,
    );
    const expected = await evaluate(new ReferenceExecutor(), graph, values);
    expected.forEach((tensor, index) => {
      const tolerance = dtype === 'f32' ? 1e-6 : 1e-2;
      expect(difference(stored(found[index]!, 'f32'), tensor, tolerance), `result ${index}`).toBeUndefined();
    });
  });
});

/** Values that bf16 holds. */
function rounded(tensor: HostTensor): HostTensor {
  return tensor.dtype === 'f32' ? stored(stored(tensor, 'bf16'), 'f32') : tensor;
}

function stored(tensor: HostTensor, dtype: DType): HostTensor {
  return tensor.dtype === dtype ? tensor : fromFloat32(dtype as 'bf16', tensor.shape, toFloat32(tensor));
}

/** Puts the results of the forward pass where its gradient wants them. */
async function makeStatistics(values: HostTensor[], { inputs, attributes }: Case): Promise<void> {
  const isPacked = inputs.length > 6;
  const given = [0, 1, 2, ...(isPacked ? [6] : [])];
  const { graph } = trace(
    'forward',
    (...x: Tensor[]) => [...apply('attention', x as never, attributes as never)],
    ...given.map((index) => inputs[index]!),
  );
  const [y, logSums] = await evaluate(
    new ReferenceExecutor(),
    graph,
    given.map((index) => values[index]!),
  );
  values[3] = rounded(y!);
  values[4] = hostTensor('f32', logSums!.shape, toFloat32(logSums!));
}
