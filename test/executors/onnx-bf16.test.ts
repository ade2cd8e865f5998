import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openExecutor } from '../../src/app.ts';
import { UserError } from '../../src/errors.ts';
import { lowerGraph } from '../../src/executors/onnx/lower.ts';
import { loadOperators } from '../../src/executors/onnx/native/operators.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { attention, concat, convolution, matmul, softmax } from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { applyOne, constant, type Graph, type Tensor, zeros } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { cases, longAttention } from './cases.ts';
import { difference, evaluate } from './comparison.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';

const isShipped = process.platform === 'linux' && process.arch === 'x64';
const multiplies = isShipped && loadOperators().bfloat16;
const hasCompiler = multiplies && spawnSync('gcc', ['--version']).status === 0;

const f32 = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
const rounded = (x: Tensor) => x.cast('bf16').cast('f32');

/** A product as the graph has it, or of operands that it rounds itself. */
interface Product {
  readonly types: readonly TensorType[];
  readonly build: (round: (x: Tensor) => Tensor, a: Tensor, b: Tensor, bias?: Tensor) => Tensor;
}

function product(a: number[], b: number[], transposeA = false, transposeB = false): Product {
  return {
    types: [f32(...a), f32(...b)],
    build: (round, left, right) => matmul(round(left), round(right), { transposeA, transposeB }),
  };
}

const products: Readonly<Record<string, Product>> = {
  'whole tiles': product([64, 128], [128, 96]),
  'sizes that fill no tile': product([45, 37], [37, 51]),
  'one number': product([1, 1], [1, 1]),
  'an inner axis of one': product([9, 1], [1, 40]),
  'few columns': product([70, 33], [33, 5]),
  'a column more than a panel': product([33, 31], [31, 33]),
  'half a panel': product([8, 6], [6, 48]),
  'the right side transposed': product([45, 37], [51, 37], false, true),
  'the right side transposed, whole tiles': product([64, 128], [96, 128], false, true),
  'the right side transposed, a long odd inner axis': product([41, 1217], [65, 1217], false, true),
  'the left side transposed': product([37, 45], [37, 51], true),
  'the left side transposed, of several blocks and shares': product([2341, 40], [2341, 33], true),
  'the left side transposed, of several bands': product([131, 700], [131, 300], true),
  'the left side transposed, few rows and columns': product([3, 2], [3, 1], true),
  'both sides transposed': product([37, 45], [51, 37], true, true),
  'rows along several axes': product([3, 5, 7, 19], [19, 30]),
  'pairs of matrices': product([3, 33, 47], [3, 47, 35]),
  'pairs of matrices, the left side transposed': product([3, 47, 33], [3, 47, 35], true),
  'pairs of matrices, the right side transposed': product([2, 2, 33, 47], [2, 2, 35, 47], false, true),
  'a bias': {
    types: [f32(2, 30, 37), f32(51, 37), f32(51)],
    build: (round, x, w, bias) => matmul(round(x), round(w), { transposeB: true }).add(bias!),
  },
};

const graphOf = ({ types, build }: Product, round: (x: Tensor) => Tensor): Graph =>
  trace('t', (a, b, ...rest) => [build(round, a!, b!, ...rest)], ...types).graph;
const given = graphs((x) => x);

function graphs(round: (x: Tensor) => Tensor): Record<string, Graph> {
  return Object.fromEntries(Object.entries(products).map(([name, row]) => [name, graphOf(row, round)]));
}

const valuesOf = (graph: Graph): HostTensor[] =>
  graph.inputs.map(({ shape }, k) => fromFloat32('f32', shape, normal(keyFromSeed(k), elementCount(shape))));

async function run(threads: number): Promise<HostTensor[]> {
  await using executor = openOnnxExecutor({ precision: 'bf16', threads });
  const results: HostTensor[] = [];
  for (const graph of Object.values(given))
    results.push(...(await evaluate(executor, graph, valuesOf(graph))));
  return results;
}

/** Compiles and runs a program that ends at what reads or writes beyond its memory. */
function expectBounds(program: string, sources: readonly string[]): void {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-bounds-'));
  try {
    const [file, native] = [join(folder, 'bounds'), resolve(import.meta.dirname, '../../native')];
    const files = [join(import.meta.dirname, program), ...sources.map((source) => join(native, source))];
    const level = ['-march=x86-64-v4', '-mavx512bf16', '-DLEVEL=level_v4', '-DPRODUCTS=products_v4'];
    const flags = ['-std=gnu11', '-O3', ...level, '-Wall', '-Wextra', '-Werror'];
    expect(spawnSync('gcc', [...flags, ...files, '-lm', '-o', file]).stderr.toString()).toBe('');
    expect(spawnSync(file)).toMatchObject({ status: 0, signal: null });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe.skipIf(!multiplies)('products in bfloat16 on the CPU', () => {
  it('are those of rounded operands, up to the order of sums', async () => {
    await using reference = new ReferenceExecutor();
    const found = await run(0);
    const wrong: string[] = [];
    for (const [i, [name, graph]] of Object.entries(graphs(rounded)).entries()) {
      const [expected] = await evaluate(reference, graph, valuesOf(graph));
      const problem = difference(found[i]!, expected!, 4e-6);
      if (problem !== undefined) wrong.push(`${name} ${problem}`);
    }
    expect(wrong).toEqual([]);
  });

  it('are all by the operators that round', () => {
    const target = { device: 'cpu', scoreBytes: 2 ** 24, ownOperators: true, roundsProducts: true } as const;
    for (const [name, graph] of Object.entries(given)) {
      const text = new TextDecoder('latin1').decode(lowerGraph(graph, [0], target).model);
      expect(text, name).toMatch(/RoundedProduct|RoundedSums/);
      expect(text, name).not.toMatch(/Gemm|MatMul|KernelGradient|Convolution/);
    }
  });

  it('round to nearest, ties to even', async () => {
    const eighth = 2 ** -8;
    const values = [1, 1 + eighth, 1 + 3 * eighth, 1 + 1.001 * eighth, -1 - eighth, 3e38, 1e-30, -0.1, 1 / 3];
    const x = Float32Array.from([...values, ...normal(keyFromSeed(5), 91)]);
    const one = fromFloat32('f32', [1, 1], Float32Array.of(1));
    await using executor = openOnnxExecutor({ precision: 'bf16' });
    const { graph } = trace('t', (a, b) => [matmul(a, b)], f32(100, 1), f32(1, 1));
    const [found] = await evaluate(executor, graph, [fromFloat32('f32', [100, 1], x), one]);
    expect(toFloat32(found!)).toEqual(toFloat32(fromFloat32('bf16', [100, 1], x)));
  });

  it.skipIf(!hasCompiler)('read and write nothing beyond their operands and results', () => {
    expectBounds('bfloat-bounds.c', ['bfloat.c']);
  });

  it('give the same bits with 1, 2 and 4 threads', async () => {
    const [one, two, four] = await Promise.all([1, 2, 4].map(run));
    expect(two).toEqual(one);
    expect(four).toEqual(one);
  });
});

/** Tokens of a sequence in segments one after the other, then some that are in none; heads and their size. */
interface Heads {
  readonly segments: readonly number[];
  /** All tokens are one segment, and nothing says so. */
  readonly isWhole?: boolean;
  readonly heads: number;
  readonly size: number;
  readonly scale?: number;
}

const packed: Readonly<Record<string, Heads>> = {
  'segments of one token and of odd numbers of keys': { segments: [1, 69, 1, 31, 33, 2], heads: 3, size: 32 },
  'heads of 64, more queries than a block': { segments: [147, 64, 90], heads: 2, size: 64 },
  'heads that fill no tile, another scale': { segments: [73, 5], heads: 2, size: 24, scale: 0.3 },
  'heads of odd size': { segments: [40], heads: 1, size: 33 },
  'no segments': { segments: [75], heads: 2, size: 32, isWhole: true },
};
const outsideOf = ({ isWhole = false }: Heads) => (isWhole ? 0 : 7);

/** q, k, v, dy -> y, dq, dk, dv */
function attentionGraph(row: Heads): Graph {
  const { segments, heads, size, isWhole = false, scale = size ** -0.5 } = row;
  const ends = segments.map((_, i) => segments.slice(0, i + 1).reduce((a, b) => a + b));
  const type = f32(1, (ends.at(-1) ?? 0) + outsideOf(row), heads, size);
  const build = (q: Tensor, k: Tensor, v: Tensor, dy: Tensor) => {
    const offsets = constant([0, ...ends], [1, ends.length + 1], 'i32');
    const y = attention(q, k, v, isWhole ? { scale } : { scale, segments: offsets });
    return [y, ...gradients(y.mul(dy).sum(), [q, k, v])];
  };
  return trace('t', build, ...([type, type, type, type] as const)).graph;
}

/** The same by products whose operands the graph rounds. */
function roundedAttentionGraph(row: Heads): Graph {
  const { segments, heads, size, scale = size ** -0.5 } = row;
  const outside = outsideOf(row);
  const tokens = segments.reduce((a, b) => a + b) + outside;
  const type = f32(1, tokens, heads, size);
  const product = (a: Tensor, b: Tensor, axes = {}) => matmul(rounded(a), rounded(b), axes);
  const inSegment = (given: readonly Tensor[]): Tensor[] => {
    const [q, k, v, dy] = given.map((x) => x.transpose([0, 2, 1, 3])) as [Tensor, Tensor, Tensor, Tensor];
    const weights = softmax(product(q.mul(scale), k, { transposeB: true }));
    const y = product(weights, v);
    const total = y.mul(dy).sum([3], true);
    const changes = product(dy, v, { transposeB: true }).sub(total).mul(weights);
    const dk = product(changes, q.mul(scale), { transposeA: true });
    const results = [y, product(changes, k).mul(scale), dk, product(weights, dy, { transposeA: true })];
    return results.map((x) => x.transpose([0, 2, 1, 3]));
  };
  const build = (...given: Tensor[]): Tensor[] => {
    const parts = given.map((x) => x.split(1, outside > 0 ? [...segments, outside] : segments));
    const results = segments.map((_, i) => inSegment(parts.map((part) => part[i]!)));
    const none = outside > 0 ? [zeros(f32(1, outside, heads, size))] : [];
    return given.map((_, k) => concat([...results.map((result) => result[k]!), ...none], 1));
  };
  return trace('t', build, ...([type, type, type, type] as const)).graph;
}

async function attend(threads: number, precision: 'bf16' | 'fp32' = 'bf16'): Promise<HostTensor[][]> {
  await using executor = openOnnxExecutor({ precision, threads });
  const results: HostTensor[][] = [];
  for (const row of Object.values(packed)) {
    const graph = attentionGraph(row);
    results.push(await evaluate(executor, graph, valuesOf(graph)));
  }
  return results;
}

describe.skipIf(!multiplies)('attention in bfloat16 on the CPU', () => {
  // What differs by its last bit before it is rounded may differ by the last of eight afterwards.
  it('is that of rounded operands, gradients as well', async () => {
    await using reference = new ReferenceExecutor();
    const found = await attend(0);
    const wrong: string[] = [];
    for (const [i, [name, row]] of Object.entries(packed).entries()) {
      const graph = roundedAttentionGraph(row);
      const expected = await evaluate(reference, graph, valuesOf(graph));
      const problems = expected.map((result, k) => difference(found[i]![k]!, result, 3e-4));
      if (problems.some((problem) => problem !== undefined)) wrong.push(`${name} ${problems.join('; ')}`);
    }
    expect(wrong).toEqual([]);
  });

  it('is near to that in float32, and another one', async () => {
    const [exact, found] = [await attend(0, 'fp32'), await attend(0)];
    for (const [i, results] of found.entries())
      for (const [k, result] of results.entries()) {
        expect(difference(result, exact[i]![k]!, 2e-2)).toBeUndefined();
        expect(difference(result, exact[i]![k]!, 3e-4)).toBeDefined();
      }
  });

  it.skipIf(!hasCompiler)('reads and writes nothing beyond its operands, results and memory', () => {
    expectBounds('attention-bounds.c', ['rounded-attention.c', 'bfloat.c', 'tile.c', 'product.c']);
  });

  it('gives the same bits with 1, 2 and 4 threads', async () => {
    const [one, two, four] = [await attend(1), await attend(2), await attend(4)];
    expect(two).toEqual(one);
    expect(four).toEqual(one);
  });
});

interface Convolved {
  readonly x: readonly number[];
  readonly kernel: readonly number[];
  readonly strides?: readonly number[];
  readonly padding?: readonly (readonly [number, number])[];
}

const convolutions: Readonly<Record<string, Convolved>> = {
  'whole tiles': { x: [1, 4, 8, 8, 32], kernel: [32, 3, 1, 1, 32] },
  'odd channels, causal padding, lines longer than a block, several shares': {
    x: [2, 3, 5, 70, 13],
    kernel: [37, 3, 3, 3, 13],
    padding: [
      [2, 0],
      [1, 1],
      [1, 1],
    ],
  },
  'three channels, several tasks of rounding': {
    x: [1, 40, 41, 3],
    kernel: [33, 3, 3, 3],
    padding: [
      [1, 1],
      [1, 1],
    ],
  },
  'one channel to one': { x: [1, 9, 1], kernel: [1, 2, 1] },
  'more channels than a panel, odd and even': { x: [1, 9, 11, 70], kernel: [65, 2, 3, 70] },
  'odd channels, more than a line of pairs': { x: [1, 5, 6, 35], kernel: [40, 2, 2, 35] },
  'strides and padding behind': {
    x: [3, 9, 31, 7],
    kernel: [12, 3, 2, 7],
    strides: [2, 3],
    padding: [
      [1, 1],
      [0, 2],
    ],
  },
  'a kernel of one tap': { x: [2, 5, 7, 21], kernel: [19, 1, 1, 21] },
  'lines of one position': {
    x: [1, 150, 1, 6],
    kernel: [10, 3, 1, 6],
    padding: [
      [2, 0],
      [0, 0],
    ],
  },
};

/** x, kernel, dy -> y, dx, dkernel, of operands as they are or that the graph rounds. With strides dx stays float32. */
function convolutionGraph({ x, kernel, ...around }: Convolved, round: (x: Tensor) => Tensor): Graph {
  const [kernelSize, inputSize] = [kernel.slice(1, -1), x.slice(1, -1)];
  const strides = around.strides ?? kernelSize.map(() => 1);
  const padding = around.padding ?? kernelSize.map(() => [0, 0] as const);
  const roundStrided = strides.every((stride) => stride === 1) ? round : (given: Tensor) => given;
  const types = [f32(...x), f32(...kernel)] as const;
  const { graph } = trace('t', (a, b) => [convolution(a, b, { strides, padding })], ...types);
  const build = (a: Tensor, b: Tensor, dy: Tensor) => [
    convolution(round(a), round(b), { strides, padding }),
    applyOne('convolutionInputGradient', [roundStrided(dy), roundStrided(b)], {
      strides,
      padding,
      inputSize,
    }),
    applyOne('convolutionKernelGradient', [round(a), round(dy)], { strides, padding, kernelSize }),
  ];
  return trace('t', build, ...types, f32(...graph.outputs[0]!.shape)).graph;
}

async function convolve(threads: number, precision: 'bf16' | 'fp32' = 'bf16'): Promise<HostTensor[][]> {
  await using executor = openOnnxExecutor({ precision, threads });
  const results: HostTensor[][] = [];
  for (const row of Object.values(convolutions)) {
    const graph = convolutionGraph(row, (x) => x);
    results.push(await evaluate(executor, graph, valuesOf(graph)));
  }
  return results;
}

describe.skipIf(!multiplies)('convolutions in bfloat16 on the CPU', () => {
  it('are those of rounded operands up to the order of sums, gradients as well', async () => {
    await using reference = new ReferenceExecutor();
    const found = await convolve(0);
    const wrong: string[] = [];
    for (const [i, [name, row]] of Object.entries(convolutions).entries()) {
      const graph = convolutionGraph(row, rounded);
      const expected = await evaluate(reference, graph, valuesOf(graph));
      const problems = expected.map((result, k) => difference(found[i]![k]!, result, 4e-6));
      if (problems.some((problem) => problem !== undefined)) wrong.push(`${name} ${problems.join('; ')}`);
    }
    expect(wrong).toEqual([]);
  });

  it('are not those of float32', async () => {
    const [exact, found] = [await convolve(0, 'fp32'), await convolve(0)];
    for (const [i, results] of found.entries())
      for (const k of [0, 2]) expect(difference(results[k]!, exact[i]![k]!, 1e-4)).toBeDefined();
  });

  it.skipIf(!hasCompiler)('read and write nothing beyond their operands, results and memory', () => {
    expectBounds('convolution-bounds.c', ['bfloat.c', 'tile.c', 'product.c']);
  });

  it('give the same bits with 1, 2 and 4 threads', async () => {
    const [one, two, four] = [await convolve(1), await convolve(2), await convolve(4)];
    expect(two).toEqual(one);
    expect(four).toEqual(one);
  });
});

describe('the precision bf16 of the CPU', () => {
  afterEach(() => {
    delete process.env.ZOETROPE_CPU_LEVEL;
  });

  it.skipIf(!multiplies)('is told and opened where the processor has it', async () => {
    await using executor = await openExecutor('cpu', { precision: 'bf16' });
    expect(await executor.ownOperators?.()).toEqual({ level: 'x86-64-v4', bfloat16: true });
  });

  it.skipIf(!isShipped).each([
    ['3', 'needs AVX512_BF16, which this processor lacks'],
    [
      '1',
      'needs operators of our own, and there are none (this processor lacks some of x86-64-v2, which SSE4.2 is part of)',
    ],
  ])('is refused on x86-64-v%s', async (level, reason) => {
    process.env.ZOETROPE_CPU_LEVEL = level;
    const opening = openExecutor('cpu', { precision: 'bf16' });
    await expect(opening).rejects.toThrow(
      new UserError(`device cpu: precision bf16 ${reason}; leave it out`),
    );
    await expect(opening).rejects.toBeInstanceOf(UserError);
  });

  it('is refused by an executor without our own operators', async () => {
    await using executor = openOnnxExecutor({ precision: 'bf16', kernels: false });
    await expect(executor.compile(given['a bias']!)).rejects.toThrow(
      'onnx cpu bf16: no operators of ours multiply bfloat16 here; leave precision bf16 out',
    );
  });
});

// Eight bits of each operand, as on GPUs.
if (multiplies)
  describeConformance(
    'onnx cpu in bf16',
    () => openOnnxExecutor({ precision: 'bf16' }),
    { ...cases, ...nnCases, longAttention },
    { tolerance: 2e-2 },
  );
