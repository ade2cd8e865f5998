import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { fold, keyFromSeed, normal } from '../../../src/random/philox.ts';
import { gelu, layerNorm, matmul } from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { fromFloat32 } from '../../../src/tensor/host-tensor.ts';
import { at, elementCount } from '../../../src/tensor/shape.ts';
import type { Graph, Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import type { Op } from '../../../src/tensor/vocabulary.ts';
import { difference, evaluate } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { kernelsOf, planStandIn, runStandIn } from './stand-in/stand-in-executor.ts';

type Layer = (x: Tensor, w: Tensor, b: Tensor) => Tensor;
const width = 64;

/** Loss and gradients of layers x + v layer(x, w, b), by their weights. */
function deep(tokens: number, layers: number, layer: Layer): Graph {
  const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });
  return trace(
    'deep',
    (weights: readonly { readonly w: Tensor; readonly v: Tensor; readonly b: Tensor }[], x: Tensor) => {
      const y = weights.reduce((h, { w, v, b }) => h.add(matmul(layer(h, w, b), v)), x);
      const loss = y.square().mean();
      return { loss, gradients: gradients(loss, weights) };
    },
    Array.from({ length: layers }, () => ({ w: f32(width, width), v: f32(width, width), b: f32(width) })),
    f32(tokens, width),
  ).graph;
}

const count = (graph: Graph, op: Op) => graph.nodes.filter((node) => node.op === op).length;
const plan = (graph: Graph) => planStandIn(graph, { prepare, partition: fusedPartition });
/** Tensors that each layer more keeps from the forward pass to the backward pass. */
const keptByLayer = (layer: Layer) => {
  const tokens = 2048;
  const [few, many] = [60, 100].map((layers) => plan(deep(tokens, layers, layer)).program.arenaBytes);
  return (many! - few!) / 40 / (tokens * width * 4);
};

describe('what is computed again for gradients of weights', () => {
  it('is kept once: the input of gelu, of a norm', () => {
    // The sum that the layer adds to, and what gelu is given.
    expect(keptByLayer((x, w, b) => gelu(matmul(x, w).add(b)))).toBeLessThan(2.2);
    // The sum alone, from which the norm and its scale are computed.
    expect(keptByLayer((x, _, b) => layerNorm(x).mul(b))).toBeLessThan(1.3);
  });

  it('is not what is computed from tensors that are not in memory that long', () => {
    // A product of which only the negation is read later.
    const graph = deep(32, 60, (x, w) => matmul(x, w).neg());
    expect(count(prepare(graph), 'neg')).toBe(count(graph, 'neg'));
  });
});

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `the same on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const graph = deep(32, 40, (x, w, b) => gelu(matmul(layerNorm(x).mul(b), w).add(b)));
    const planned = plan(graph);
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      compiled = await CpuKernels.compile(prelude, kernelsOf(planned));
    }, 120_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it('gives the numbers of the reference', async () => {
      const count = (given: Graph) => given.nodes.filter(({ op }) => op === 'gelu').length;
      expect(count(prepare(graph))).toBeGreaterThan(count(graph));
      const values = graph.inputs.map(({ shape }, index) => {
        const draws = normal(fold(keyFromSeed(1), String(index)), elementCount(shape));
        const scale = shape.length === 2 && at(shape, 0) === width ? 0.1 : 1;
        return fromFloat32(
          'f32',
          shape,
          draws.map((value) => scale * value),
        );
      });
      const expected = await evaluate(new ReferenceExecutor(), graph, values);
      const found = runStandIn(planned, compiled!, values);
      expected.forEach((tensor, index) => {
        expect(difference(found[index]!, tensor, 1e-5), graph.outputNames[index]!).toBeUndefined();
      });
    });
  },
);
