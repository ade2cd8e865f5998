import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import koffi from 'koffi';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { findGroups } from '../../src/executors/onnx/fused/groups.ts';
import { accessOf } from '../../src/executors/onnx/fused/space.ts';
import { lowerGraph } from '../../src/executors/onnx/lower.ts';
import { loadOperators } from '../../src/executors/onnx/native/operators.ts';
import { type OnnxOptions, openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import {
  attention,
  concat,
  convolution,
  gelu,
  layerNorm,
  matmul,
  rmsNorm,
  silu,
} from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { applyOne, constant, type Graph, nodesOf, type Tensor, zeros } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { cases } from './cases.ts';
import { difference, evaluate } from './comparison.ts';
import { describeConformance } from './conformance.ts';
import { nnCases } from './nn-cases.ts';

const native = resolve(import.meta.dirname, '../../native');
const isShipped = process.platform === 'linux' && process.arch === 'x64';
const hasCompiler = process.arch === 'x64' && spawnSync('gcc', ['--version']).status === 0;
const tolerance = 1e-6;

const f32 = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });

/** A causal convolution along time and its gradients, written as products. */
function timeProduct(isPadded: boolean): Graph {
  const [x, w] = [f32(2, 7, 3, 5, 24), f32(40, 3 * 24)];
  return trace(
    't',
    (given, weight) => {
      const before = zeros(f32(2, 2, 3, 5, 24));
      const whole = isPadded ? concat([before, given], 1) : given;
      const frames = whole.shape[1]! - 2;
      const taps = [0, 1, 2].map((tap) => whole.slice(1, tap, tap + frames));
      const y = matmul(concat(taps, -1), weight, { transposeB: true });
      return [y, ...gradients(y.mul(y).sum(), [given, weight])];
    },
    x,
    w,
  ).graph;
}

/** Two rows of segments: the second begins late, ends early, and has an empty one. */
function packedAttention(batch: number, tokens: number, heads: number, size: number): Graph {
  const type = f32(batch, tokens, heads, size);
  return trace(
    't',
    (q, k, v, dy) => {
      const offsets = [0, 1, 70, tokens, 9, 81, 81, tokens - 20].slice(0, 4 * batch);
      const segments = constant(offsets, [batch, 4], 'i32');
      const y = attention(q, k, v, { segments });
      return [y, ...gradients(y.mul(dy).sum(), [q, k, v])];
    },
    ...([type, type, type, type] as const),
  ).graph;
}

/** A convolution of two axes with zeros in front along the first, and its gradients, of which those zeros are cut off. */
function paddedConvolution(strides: [number, number], beside: number): Graph {
  return trace(
    't',
    (x, k) => {
      const padding = [[0, 0] as const, [beside, beside] as const];
      const y = convolution(concat([zeros(f32(2, 2, 6, 5)), x], 1), k, { strides, padding });
      return [y, ...gradients(y.mul(y).sum(), [x, k])];
    },
    f32(2, 7, 6, 5),
    f32(4, 3, 3, 5),
  ).graph;
}

/** Graphs that try what groups can be: broadcasts of all kinds, sums over rows, reshapes, ends of tiles and tasks. */
const graphs: Readonly<Record<string, Graph>> = {
  'broadcasts over rows, columns and outer axes': trace(
    't',
    (x, row, outer, inner, column) => [
      x.mul(row).add(outer).sub(inner.mul(column)),
      x.add(column).mul(column.add(1)).maximum(inner),
    ],
    f32(3, 70, 33),
    f32(33),
    f32(3, 1, 33),
    f32(1, 70, 33),
    f32(3, 70, 1),
  ).graph,
  'norms and their gradients, scaled and added': trace(
    't',
    (x, scale, dy) => {
      const y = layerNorm(x)
        .mul(scale)
        .add(rmsNorm(x.add(1)));
      return [y, ...gradients(y.mul(dy).sum(), [x, scale])];
    },
    f32(2, 90, 48),
    f32(48),
    f32(2, 90, 48),
  ).graph,
  'sums and norms of rows of one element beside wider ones': trace(
    't',
    (x, one, column) => [
      x.sum([-1], true).sum([-1], true).add(x),
      x.mul(one.sum([-1])),
      x.add(rmsNorm(column)).sum([-1]),
      rmsNorm(column),
      layerNorm(x.sum([-1], true)),
    ],
    f32(5, 8),
    f32(1),
    f32(5, 1),
  ).graph,
  'sums and maxima over rows, given out as well': trace(
    't',
    (x, y) => {
      const total = x.mul(y).sum([-1], true);
      const powers = x.sub(x.max([-1], true)).exp();
      return [total, x.sub(total), powers.div(powers.sum([-1], true)), x.abs().sum([-1])];
    },
    f32(130, 70),
    f32(130, 70),
  ).graph,
  'other shapes of the same rows': trace(
    't',
    (x, y) => {
      const flat = x.reshape([60, 40]).mul(y).sub(1);
      return [
        flat.reshape([3, 20, 40]).add(x),
        flat,
        flat.mul(flat).sum([-1], true).reshape([3, 20, 1]).mul(x),
      ];
    },
    f32(3, 20, 40),
    f32(60, 40),
  ).graph,
  'activations and their gradients over many tasks': trace(
    't',
    (x, dy) => [
      gelu(x),
      ...[gelu, silu, (v: Tensor) => v.sigmoid(), (v: Tensor) => v.tanh()].flatMap((f) =>
        gradients(f(x).mul(dy).sum(), [x]),
      ),
    ],
    f32(701, 301),
    f32(701, 301),
  ).graph,
  'groups on both sides of a product that reads them': trace(
    't',
    (x, w) => {
      const a = x.mul(2).add(1);
      const b = matmul(a.exp(), w);
      return [b.add(a).mul(b), a.sub(x)];
    },
    f32(40, 24),
    f32(24, 24),
  ).graph,
  'products with a transposed left side': trace(
    't',
    (x, dy) => [matmul(x.mul(2), dy, { transposeA: true }), matmul(dy, x, { transposeA: true })],
    f32(137, 35),
    f32(137, 67),
  ).graph,
  'squares of matrices: both ways, of squares, of rows and columns that are no whole tiles': trace(
    't',
    (x, y) => {
      const squares = [x, y].map((value) => matmul(value, value, { transposeB: true }));
      return [
        ...squares,
        ...squares.map((square) => matmul(square, square)),
        matmul(x, x, { transposeA: true }),
        matmul(y, x, { transposeA: true }),
      ];
    },
    f32(3, 137, 101),
    f32(3, 137, 300),
  ).graph,
  'sums of columns: pieces and blocks of rows that are not whole, with and without their axes, and such that are left':
    trace(
      't',
      (x, y) => [
        x.mul(2).sum([0]),
        y.sum([0, 1]),
        y.exp().sum([0, 1], true),
        y.sum([0]),
        y.sum([1, 2]),
        x.sum([0]).mul(x).sum([0]),
      ],
      f32(1037, 35),
      f32(3, 411, 130),
    ).graph,
  'rows longer than a tile can hold': trace(
    't',
    (x, row) => [rmsNorm(x.add(row)), x.mul(row)],
    f32(3, 20_000),
    f32(20_000),
  ).graph,
  'convolutions and their gradients: tiles that are not whole, lines longer than a block, several shares':
    trace(
      't',
      (x, k, dy) => {
        const padding = [[2, 0] as const, [1, 1] as const, [1, 1] as const];
        return gradients(convolution(x, k, { padding }).mul(dy).sum(), [x, k]).concat(
          convolution(x, k, { padding }),
        );
      },
      f32(2, 3, 5, 70, 13),
      f32(37, 3, 3, 3, 13),
      f32(2, 3, 5, 70, 37),
    ).graph,
  'convolutions with strides and of wide channels': trace(
    't',
    (x, k) => {
      const y = convolution(x, k, {
        strides: [2, 3],
        padding: [
          [1, 1],
          [0, 2],
        ],
      });
      return [y, ...gradients(y.mul(y).sum(), [x, k])];
    },
    f32(3, 9, 31, 70),
    f32(65, 3, 2, 70),
  ).graph,
  'convolutions along time alone': trace(
    't',
    (x, k) => {
      const y = convolution(x, k);
      return [y, ...gradients(y.mul(y).sum(), [x, k])];
    },
    f32(2, 7, 12, 16, 32),
    f32(32, 3, 1, 1, 32),
  ).graph,
  'a product of a tensor beside itself, shifted, with zeros in front': timeProduct(true),
  'a product of a tensor beside itself, shifted': timeProduct(false),
  'sums of outer products of a tensor beside itself, shifted, of one gradient and of several': trace(
    't',
    (x, several, single, one) => {
      const beside = concat(
        [0, 1, 2].map((t) => x.slice(0, t, t + 7)),
        -1,
      );
      return [several, single, one].map((dy) => matmul(dy, beside, { transposeA: true }));
    },
    f32(9, 4),
    f32(2, 7, 3),
    f32(2, 7, 1),
    f32(7, 1),
  ).graph,
  'convolutions with zeros in front and beside': paddedConvolution([1, 1], 1),
  'convolutions with zeros in front': paddedConvolution([1, 1], 0),
  'convolutions with zeros in front, and strides': paddedConvolution([2, 1], 0),
  "part of a convolution's gradient whose channels are taken apart": trace(
    't',
    (dy, k) => [
      applyOne('convolutionInputGradient', [dy, k], {
        strides: [1, 1],
        padding: [
          [0, 0],
          [0, 0],
        ],
        inputSize: [3, 4],
      })
        .reshape([6, 3, 4, 2])
        .slice(1, 1, 3),
    ],
    f32(2, 2, 4, 5),
    f32(5, 2, 1, 6),
  ).graph,
  'a product of many rows along nine axes': trace(
    't',
    (x, w) => [matmul(x, w)],
    f32(2, 2, 2, 2, 2, 2, 2, 16, 3),
    f32(3, 4),
  ).graph,
  'attention in segments, some tokens in none, and its gradient': packedAttention(2, 150, 3, 24),
  'attention of heads that fill tiles': packedAttention(1, 150, 2, 64),
  'stretches of rows, of one tensor several, of every extent': trace(
    't',
    (x, one, y) => {
      const [a, b, c] = x.split(-1, [33, 33, 4]) as [Tensor, Tensor, Tensor];
      const column = c.slice(-1, 2, 3);
      return [
        a.mul(b).add(rmsNorm(b)).mul(column),
        a.add(one.slice(-1, 3, 36)).sub(y.slice(-1, 1, 34).slice(1, 0, 20)),
        c.mul(2).add(column),
        b.slice(0, 0, 2).exp(),
      ];
    },
    f32(3, 20, 70),
    f32(3, 1, 40),
    f32(3, 21, 34),
  ).graph,
  'a long product of many rows, with a bias': trace(
    't',
    (x, w, bias) => [matmul(x, w).add(bias), matmul(x, w.transpose([1, 0]), { transposeB: true })],
    f32(1030, 601),
    f32(601, 45),
    f32(45),
  ).graph,
  'an update in place of every kind of operand': trace(
    't',
    (p, g, m, v, rate) => {
      const mean = m.mul(0.9).add(g.mul(rate));
      const square = v.square().mul(0.95).add(g.square().mul(rate.square()));
      return [p.sub(mean.div(square.sqrt().add(0.1)).mul(rate)), mean, square];
    },
    f32(77, 777),
    f32(77, 777),
    f32(77, 777),
    f32(77, 777),
    f32(),
  ).graph,
};

const valuesOf = (graph: Graph): HostTensor[] =>
  graph.inputs.map(({ shape }, k) => fromFloat32('f32', shape, normal(keyFromSeed(k), elementCount(shape))));

async function run(options: OnnxOptions, donate: readonly number[] = []): Promise<HostTensor[][]> {
  await using executor = openOnnxExecutor(options);
  const results: HostTensor[][] = [];
  for (const graph of Object.values(graphs)) {
    using executable = await executor.compile(graph, { donate });
    const inputs = valuesOf(graph).map((value) => executor.upload(value));
    const outputs = await executor.run(executable, inputs);
    results.push(await Promise.all(outputs.map((output) => executor.download(output))));
  }
  return results;
}

describe.skipIf(!isShipped)('our own operators', () => {
  let expected: HostTensor[][];
  beforeAll(async () => {
    // Were they not there, all of this would try ONNX Runtime's own kernels.
    expect(loadOperators().operators).toHaveLength(10);
    await using reference = new ReferenceExecutor();
    expected = [];
    for (const graph of Object.values(graphs))
      expected.push(await evaluate(reference, graph, valuesOf(graph)));
  }, 60_000);
  afterEach(() => {
    delete process.env.ZOETROPE_CPU_LEVEL;
  });

  const expectRight = (found: readonly HostTensor[][]) => {
    const wrong = Object.keys(graphs).flatMap((name, i) =>
      (expected[i] ?? []).flatMap((value, k) => {
        const problem = difference(found[i]![k]!, value, tolerance * 4);
        return problem === undefined ? [] : [`${name}, output ${k} ${problem}`];
      }),
    );
    expect(wrong).toEqual([]);
  };

  // On a machine without AVX-512 the highest level is the one below.
  it.each(['2', '3', '4'])('agree with the reference on x86-64-v%s', async (level) => {
    process.env.ZOETROPE_CPU_LEVEL = level;
    expectRight(await run({}));
  });

  it('give the same bits with 1, 2 and 4 threads', async () => {
    const results = await Promise.all([1, 2, 4].map((threads) => run({ threads })));
    const data = results.map((graphResults) =>
      graphResults.map((outputs) => outputs.map((output) => output.data)),
    );
    expect(data[1]).toEqual(data[0]);
    expect(data[2]).toEqual(data[0]);
  });

  it('give the same where inputs are overwritten', async () => {
    expectRight(await run({}, [0, 1]));
  });

  it('tell the level that they use', async () => {
    process.env.ZOETROPE_CPU_LEVEL = '2';
    expect(loadOperators()).toMatchObject({ level: 'x86-64-v2' });
    await using executor = openOnnxExecutor();
    expect(await executor.ownOperators()).toEqual({ level: 'x86-64-v2', bfloat16: false });
  });

  it('are done without on request', async () => {
    expectRight(await run({ kernels: false }));
    await using executor = openOnnxExecutor({ kernels: false });
    expect(await executor.ownOperators()).toEqual({ problem: 'not wanted' });
  });

  const tooOld = 'this processor lacks some of x86-64-v2, which SSE4.2 is part of';

  it('are done without on a processor older than what they are compiled for', async () => {
    process.env.ZOETROPE_CPU_LEVEL = '1';
    const { graph } = trace('t', (x) => [x.exp().add(1).sqrt()], f32(64));
    await using executor = openOnnxExecutor();
    expect(await executor.ownOperators()).toEqual({ problem: tooOld });
    const values = valuesOf(graph);
    const [found] = await evaluate(executor, graph, values);
    const [wanted] = await evaluate(new ReferenceExecutor(), graph, values);
    expect(difference(found!, wanted!, tolerance)).toBeUndefined();
  });

  it('are not handed out by the library on such a processor', () => {
    process.env.ZOETROPE_CPU_LEVEL = '1';
    const library = koffi.load(join(native, 'prebuilt/linux-x64/libzoetrope-kernels.so'));
    expect(library.func('zoetrope_operator', 'void *', ['size_t'])(0)).toBeNull();
  });

  /** What an executor says of a folder that it cannot use, whatever it is asked for. */
  async function refusal(options: OnnxOptions): Promise<string> {
    await using executor = openOnnxExecutor(options);
    const { graph } = trace('t', (x) => [x], f32(1));
    const attempts = [
      () => executor.compile(graph),
      () => executor.download(executor.upload(zeroTensor)),
      () => executor.compile(graph),
    ];
    const said: unknown[] = [];
    for (const attempt of attempts) said.push(await attempt().then(() => 'done', String));
    expect(new Set(said).size).toBe(1);
    return String(said[0]);
  }
  const zeroTensor = fromFloat32('f32', [1], new Float32Array(1));

  it('of a folder that was named have to be there, in one line', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kernels-'));
    const file = join(folder, 'libzoetrope-kernels.so');
    const named = (problem: string) =>
      `ExecutorError: onnx cpu: kernels ${folder}: ${problem}; name another folder, or leave kernels out`;
    try {
      expect(await refusal({ kernels: folder })).toBe(named(`there is no ${file}`));
      writeFileSync(file, 'no library');
      const damaged = await refusal({ kernels: folder });
      expect(damaged).toMatch(
        /^ExecutorError: onnx cpu: kernels [^\n]*: [^\n]*file too short; name another [^\n]*$/,
      );
      cpSync(join(native, 'prebuilt/linux-x64/libzoetrope-kernels.so'), file);
      process.env.ZOETROPE_CPU_LEVEL = '1';
      expect(await refusal({ kernels: folder })).toBe(named(tooOld));
      expect(await refusal({ kernels: folder, binding: 'package' })).toBe(
        `ExecutorError: onnx cpu: kernels ${folder}: ONNX Runtime's JavaScript package takes none; leave kernels out`,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('have the values of their functions at the ends', async () => {
    await using executor = openOnnxExecutor();
    const x = [0, -0, 1e-30, 88, 88.7, 89, 1e30, -87, -100, -104, -1e30, Infinity, -Infinity, NaN];
    const functions = [
      (v: number) => Math.exp(v),
      (v: number) => Math.tanh(v),
      (v: number) => 1 / (1 + Math.exp(-v)),
    ];
    const { graph } = trace('t', (t) => [t.exp(), t.tanh(), t.sigmoid()], f32(x.length));
    const found = await evaluate(executor, graph, [fromFloat32('f32', [x.length], Float32Array.from(x))]);
    functions.forEach((f, k) => {
      x.forEach((value, i) => {
        const exact = Math.fround(f(Math.fround(value)));
        const got = (found[k]!.data as Float32Array)[i]!;
        const close = Object.is(got, exact) || Math.abs(got - exact) <= 3e-7 * Math.abs(exact) + 2 ** -126;
        expect(close, `function ${k} of ${value}: ${got}, exactly ${exact}`).toBe(true);
      });
    });
  });

  it.skipIf(!hasCompiler)('are what native/build.sh builds', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kernels-'));
    try {
      const { status, stderr } = spawnSync('sh', [join(native, 'build.sh'), folder], { encoding: 'utf8' });
      expect(stderr).toBe('');
      expect(status).toBe(0);
      const [built, ours] = [await run({ kernels: folder }), await run({})];
      expect(loadOperators(folder).operators).toHaveLength(loadOperators().operators.length);
      expectRight(built);
      // Other compilers may order the sums of a loop's end differently, not more.
      built.forEach((outputs, i) => {
        outputs.forEach((output, k) => {
          expect(difference(output, ours[i]![k]!, tolerance)).toBeUndefined();
        });
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('groups of fused nodes', () => {
  const target = { device: 'cpu', scoreBytes: 2 ** 24, ownOperators: true, roundsProducts: false } as const;
  const operators = (graph: Graph) => {
    const { model } = lowerGraph(
      graph,
      graph.outputs.map((_, index) => index),
      target,
    );
    return new TextDecoder('latin1')
      .decode(model)
      .match(/Fused|Gemm|MatMul|Transposed|Convolution|KernelGradient|Concat|Slice|Pad\b|Exp\b|Add\b|Mul\b/g);
  };

  it('never need each other in a circle', () => {
    for (const graph of Object.values(graphs)) {
      const nodes = nodesOf(graph.outputs);
      const { groups, distanceFromEnd } = findGroups(nodes, graph.outputs, () => true);
      for (const { nodes: members } of groups) {
        const inside = new Set(members);
        const below = new Set(nodesOf(members.flatMap((node) => [...node.operands] as Tensor[])));
        const leaving = [...below].filter(
          (node) =>
            !inside.has(node) &&
            nodesOf([...node.results]).some((other) => other !== node && inside.has(other)),
        );
        expect(leaving).toEqual([]);
        expect(new Set(members.map((node) => distanceFromEnd.get(node))).size).toBe(1);
      }
    }
  });

  it('take in chains with their norms and sums, and stop at products', () => {
    // The sum over all rows, in the gradient of the scale, stands between two.
    expect(operators(graphs['norms and their gradients, scaled and added']!)).toEqual(['Fused', 'Fused']);
    expect(operators(graphs['groups on both sides of a product that reads them']!)).toEqual([
      'Fused',
      'Gemm',
      'Fused',
    ]);
    expect(operators(graphs['an update in place of every kind of operand']!)).toEqual(['Fused']);
  });

  it('leave products of shifted tensors to convolutions', () => {
    const expected = ['Convolution', 'Fused', 'Convolution', 'KernelGradient'];
    expect(operators(graphs['a product of a tensor beside itself, shifted']!)?.sort()).toEqual(
      expected.sort(),
    );
    expect(
      operators(graphs['a product of a tensor beside itself, shifted, with zeros in front']!)?.sort(),
    ).toEqual(expected.sort());
  });

  it('read stretches of rows where the rows are', () => {
    const { graph } = trace(
      't',
      (x) => [
        x
          .slice(-1, 0, 8)
          .mul(x.slice(-1, 8, 16))
          .add(1),
      ],
      f32(30, 16),
    );
    expect(operators(graph)).toEqual(['Fused']);
  });

  it('read operands row by row where that is possible', () => {
    const space = { rows: 60, width: 8 };
    expect(accessOf([8], [3, 20, 8], space)).toEqual({ extent: 2, divisor: 1, modulus: 1 });
    expect(accessOf([3, 1, 8], [3, 20, 8], space)).toEqual({ extent: 2, divisor: 20, modulus: 3 });
    expect(accessOf([20, 1], [3, 20, 8], space)).toEqual({ extent: 1, divisor: 1, modulus: 20 });
    expect(accessOf([3, 20, 8], [3, 20, 8], space)).toEqual({ extent: 2, divisor: 1, modulus: 0 });
    expect(accessOf([1], [3, 20, 8], space)).toEqual({ extent: 0, divisor: 1, modulus: 0 });
    expect(accessOf([3, 1, 5, 1, 8], [3, 2, 5, 2, 8], space)).toBeUndefined();
  });
});

// What the portable lowering does, which other platforms and devices run.
describeConformance(
  'onnx cpu, without our own operators',
  () => openOnnxExecutor({ kernels: false }),
  { ...cases, ...nnCases },
  { tolerance },
);
