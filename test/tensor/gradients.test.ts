import { describe, expect, it } from 'vitest';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { matmul } from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { printGraph } from '../../src/tensor/print.ts';
import type { Graph, Tensor } from '../../src/tensor/tensor.ts';
import { block, checkpoint, trace } from '../../src/tensor/trace.ts';
import { verify } from '../../src/tensor/verify.ts';
import { type ConformanceCase, cases } from '../executors/cases.ts';
import { backwardGraph, inputValues, weighted } from '../executors/comparison.ts';
import { nnCases } from '../executors/nn-cases.ts';

const reference = new ReferenceExecutor();

/** Values of a graph's outputs in float64. */
async function evaluate(graph: Graph, values: readonly HostTensor[]): Promise<Float64Array[]> {
  const executable = await reference.compile(graph);
  const outputs = await reference.run(
    executable,
    values.map((value) => reference.upload(value)),
  );
  return outputs.map((output) => reference.peek(output));
}

/** The value moved along a direction; float32, so the step actually taken is read back from it. */
function moved(value: HostTensor, direction: Float32Array, step: number): HostTensor {
  return fromFloat32(
    'f32',
    value.shape,
    toFloat32(value).map((x, i) => x + step * direction[i]!),
  );
}

const step = 2 ** -11;
/** Casts to 16 bits are steps: their gradient is that of the line they follow, which differences do not see. */
const stepped = new Set(['cast/through bf16', 'cast/through f16']);

describe('gradients agree with central differences on the reference executor', () => {
  for (const [table, rows] of Object.entries({ ...cases, ...nnCases } as Record<
    string,
    readonly ConformanceCase[]
  >)) {
    for (const row of rows) {
      const name = `${table}/${row.name}`;
      if (row.forwardOnly || stepped.has(name)) continue;
      it(name, async () => {
        const values = row.inputs.map((input, index) => inputValues(input, `${name}.${index}`));
        const loss = trace(
          name,
          (...inputs: Tensor[]) => ({ loss: weighted(row.build(...inputs)) }),
          ...row.inputs,
        ).graph;
        const found = await evaluate(backwardGraph(row), values);
        let next = 0;
        for (const [index, input] of row.inputs.entries()) {
          if (input.dtype !== 'f32') continue;
          const gradient = found[next++]!;
          if (input.isData) continue;
          const direction = normal(fold(keyFromSeed(3), `${name}/${index}`), gradient.length);
          const [up, down] = [
            moved(values[index]!, direction, step),
            moved(values[index]!, direction, -step),
          ];
          const [above, below] = await Promise.all(
            [up, down].map(async (value) => (await evaluate(loss, values.with(index, value)))[0]![0]!),
          );
          const taken = toFloat32(up).map((x, i) => x - toFloat32(down)[i]!);
          const predicted = gradient.reduce((sum, g, i) => sum + g * taken[i]!, 0);
          const scale = gradient.reduce((sum, g, i) => sum + Math.abs(g * taken[i]!), 1e-9);
          expect(Math.abs(above! - below! - predicted) / scale, `input ${index}`).toBeLessThan(2e-3);
        }
      });
    }
  }
});

describe('gradients', () => {
  const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });

  it('are zeros where the loss does not depend on a tensor', async () => {
    const { graph } = trace('t', (x, y) => gradients(x.square().sum(), { x, y }), f32(2), f32(3));
    const [dx, dy] = await evaluate(graph, [
      fromFloat32('f32', [2], Float32Array.of(1, 2)),
      fromFloat32('f32', [3], new Float32Array(3)),
    ]);
    expect([...dx!]).toEqual([2, 4]);
    expect([...dy!]).toEqual([0, 0, 0]);
  });

  it('of gradients give second derivatives', async () => {
    const { graph } = trace(
      't',
      (x) => {
        const { x: dx } = gradients(x.exp().mul(x).sum(), { x });
        return gradients(dx.sum(), { x });
      },
      f32(2),
    );
    const [second] = await evaluate(graph, [fromFloat32('f32', [2], Float32Array.of(0, 1))]);
    expect(second![0]).toBeCloseTo(2, 6);
    expect(second![1]).toBeCloseTo(3 * Math.E, 6);
  });

  it('reach tensors in the middle of a graph', async () => {
    const { graph } = trace(
      't',
      (x) => {
        const h = x.mul(3);
        return gradients(h.square().sum(), { h, x });
      },
      f32(1),
    );
    const found = await evaluate(graph, [fromFloat32('f32', [1], Float32Array.of(2))]);
    expect(found.map(([value]) => value)).toEqual([12, 36]);
  });

  it.each([
    ['a vector', (x: Tensor) => gradients(x, { x }), /must be a floating scalar, got f32\[2\]/],
    [
      'an integer',
      (x: Tensor) => gradients(x.cast('i32').sum(), { x }),
      /must be a floating scalar, got i32\[\]/,
    ],
  ])('refuse %s as loss', (_, build, message) => {
    expect(() => trace('t', build, f32(2))).toThrow(message);
  });

  it('run a block forward once, and a recomputed one twice', () => {
    const layerOf = (recompute: boolean) => {
      const build = (w: Tensor, x: Tensor) => matmul(x, w).tanh();
      return recompute ? checkpoint(build, 'layer') : block('layer', build);
    };
    for (const recompute of [false, true]) {
      const layer = layerOf(recompute);
      const { graph } = trace(
        't',
        (ws, x) =>
          gradients(
            ws
              .reduce((h, w) => layer(w, h), x)
              .square()
              .sum(),
            ws,
          ),
        [f32(4, 4), f32(4, 4), f32(4, 4)],
        f32(2, 4),
      );
      verify(graph, 'test');
      const called = graph.nodes.flatMap((node) => (node.op === 'call' ? [node.attributes.graph] : []));
      expect(called.length).toBe(6);
      // The gradient of every layer but the first also gives dx: two different graphs.
      expect(new Set(called.slice(3)).size).toBe(2);
      const tanhs = called.map(({ nodes }) => nodes.filter(({ op }) => op === 'tanh').length);
      expect(tanhs).toEqual(recompute ? [1, 1, 1, 1, 1, 1] : [1, 1, 1, 0, 0, 0]);
      // Nothing more is kept: tanh's own value serves its gradient, x and w are the block's arguments.
      expect(called.slice(0, 3).map(({ outputs }) => outputs.length)).toEqual([1, 1, 1]);
      expect(printGraph(graph)).toMatchSnapshot(recompute ? 'recomputed' : 'kept');
    }
  });
});
