import { describe, expect, it } from 'vitest';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { concat, pad } from '../../src/tensor/functions.ts';
import { makeGraph } from '../../src/tensor/graph.ts';
import { PadSums } from '../../src/tensor/pad-sums.ts';
import { at, type Shape } from '../../src/tensor/shape.ts';
import { operandsOf, resultsOf, type Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { evaluate, inputValues } from '../executors/comparison.ts';

/** What is found of the sum that a function of traced inputs ends in. */
function found(build: (...x: Tensor[]) => Tensor, ...shapes: readonly Shape[]) {
  const types = shapes.map((shape) => ({ shape, dtype: 'f32' as const }));
  const { graph } = trace('sum', (...x: Tensor[]) => [build(...x)], ...types);
  return { graph, joined: new PadSums().find(operandsOf(at(graph.outputs, 0).node)) };
}

const columns = (x: Tensor | undefined, before: number, after: number) =>
  pad(x!, [
    [0, 0],
    [before, after],
  ]);

describe('sums of paddings', () => {
  it('are the concatenation of what is padded, in any order and nesting', async () => {
    const { graph, joined } = found(
      (a, b, c, d) =>
        columns(c, 3, 1)
          .add(columns(a, 0, 5))
          .add(columns(d, 5, 0).add(columns(b, 1, 3))),
      [2, 1],
      [2, 2],
      [2, 2],
      [2, 1],
    );
    expect(joined?.axis).toBe(1);
    expect(joined?.nodes.map(({ op }) => op).sort()).toEqual(['add', 'add', 'pad', 'pad', 'pad', 'pad']);
    const whole = makeGraph('whole', graph.inputs, [concat(joined!.parts, joined!.axis)], graph.outputNames);
    const reference = new ReferenceExecutor();
    const values = graph.inputs.map(({ shape }, i) =>
      inputValues({ shape, dtype: 'f32', source: 'normal' }, `pads ${i}`),
    );
    expect(await evaluate(reference, whole, values)).toEqual(await evaluate(reference, graph, values));
  });

  it.each<[string, (...x: Tensor[]) => Tensor]>([
    ['overlap', (a, b) => columns(a, 0, 1).add(columns(b, 1, 0))],
    ['leave a gap', (a, b) => columns(a, 0, 3).add(columns(b, 3, 0))],
    [
      'are one and another axis',
      (a, b) =>
        columns(a, 0, 2)
          .add(columns(b, 2, 0))
          .add(a!.reshape([1, 4])),
    ],
    [
      'have a term that is none',
      (a, b) => columns(a, 0, 2).add(columns(b, 2, 0).add(columns(a, 0, 2).neg())),
    ],
    ['have one that is not padded', (a) => columns(a, 0, 0).add(columns(a, 0, 0))],
  ])('are left alone when they %s', (_, build) => {
    expect(found(build, [2, 2], [2, 2]).joined).toBeUndefined();
  });

  it('are left alone along two axes', () => {
    const rows = (x: Tensor | undefined) =>
      pad(x!, [
        [1, 0],
        [0, 0],
      ]);
    expect(found((x, y) => columns(x, 0, 2).add(rows(y)), [2, 2], [1, 4]).joined).toBeUndefined();
  });

  it('are left alone where they are repeated along another axis, or may not be taken apart', () => {
    expect(found((x, y) => columns(x, 0, 2).add(columns(y, 2, 0)), [1, 2], [3, 2]).joined).toBeUndefined();
    const { graph } = found((x, y) => columns(x, 0, 2).add(columns(y, 2, 0)), [1, 2], [1, 2]);
    const operands = operandsOf(at(graph.outputs, 0).node);
    expect(new PadSums().find(operands)).toBeDefined();
    expect(new PadSums((term) => term !== operands[1]).find(operands)).toBeUndefined();
  });

  it('are looked at once each, however deep sums share their terms', () => {
    const { graph } = found(
      (x) => Array.from({ length: 60 }).reduce<Tensor>((sum) => sum.add(sum), columns(x, 0, 2)),
      [2, 2],
    );
    let looks = 0;
    const sums = new PadSums(() => {
      looks++;
      return true;
    });
    let sum = at(graph.outputs, 0);
    for (; sum.node.op === 'add'; sum = at(operandsOf(sum.node), 0))
      expect(sums.find(operandsOf(sum.node))).toBeUndefined();
    expect(resultsOf(sum.node)).toHaveLength(1);
    expect(looks).toBeLessThan(6 * 60);
  });
});
