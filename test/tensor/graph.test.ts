import { describe, expect, it } from 'vitest';
import { matmul, rmsNorm, silu } from '../../src/tensor/functions.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { input, makeGraph } from '../../src/tensor/graph.ts';
import { printGraph, sourceOf } from '../../src/tensor/print.ts';
import { inlineCalls } from '../../src/tensor/rewrite.ts';
import { apply, type Graph, type Node, nodesOf, type Tensor } from '../../src/tensor/tensor.ts';
import { block, trace } from '../../src/tensor/trace.ts';
import { entries, leaves, mapTree, withLeaves } from '../../src/tensor/tree.ts';
import { verify } from '../../src/tensor/verify.ts';

const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });

describe('tracing', () => {
  it('prints the same text for the same computation', () => {
    const build = () =>
      trace(
        'model',
        (p, x) => ({ y: silu(rmsNorm(matmul(x, p.w))).mul(p.scale) }),
        { w: f32(3, 4), scale: f32(4) },
        f32(2, 3),
      ).graph;
    expect(printGraph(build())).toBe(printGraph(build()));
    expect(printGraph(build())).toMatchSnapshot();
  });

  it('keeps a training step as calls of two graphs per block', () => {
    const layer = block('layer', (p: { w: Tensor }, x: Tensor) => x.add(silu(matmul(x, p.w))));
    const { graph } = trace(
      'step',
      (ps, x) => {
        const loss = ps
          .reduce((h, p) => layer(p, h), x)
          .square()
          .mean();
        const dps = gradients(loss, ps);
        return { loss, ps: ps.map(({ w }, i) => ({ w: w.sub(dps[i]!.w.mul(0.1)) })) };
      },
      [{ w: f32(4, 4) }, { w: f32(4, 4) }],
      f32(2, 4),
    );
    verify(graph, 'test');
    expect(printGraph(graph)).toMatchSnapshot();
  });

  it('traces a block once per set of shapes', () => {
    let traced = 0;
    const layer = block('layer', (x: Tensor) => {
      traced++;
      return x.exp();
    });
    trace('t', (x, y) => [layer(layer(x)), layer(y)], f32(2), f32(3));
    expect(traced).toBe(2);
  });

  it('tells trees of different form apart', () => {
    const layer = block('layer', (x: readonly Tensor[] | { 0: Tensor }) =>
      x[0]!.mul(Array.isArray(x) ? 2 : 3),
    );
    const { graph } = trace('t', (x) => [layer([x]), layer({ 0: x })], f32(2));
    const called = graph.nodes.flatMap((node) => (node.op === 'call' ? [node.attributes.graph] : []));
    expect(new Set(called).size).toBe(2);
  });

  it('refuses tensors from outside a block', () => {
    expect(() => trace('t', (x) => block('layer', (y: Tensor) => y.add(x))(x.exp()), f32(2))).toThrow(
      /^layer uses 0 from outside; pass it as an argument$/,
    );
  });

  it('inlines calls to the same operations', () => {
    const layer = block('layer', (x: Tensor) => x.exp().mul(2));
    const outer = block('outer', (x: Tensor) => layer(layer(x)));
    const { graph } = trace('t', (x) => outer(x), f32(2));
    const ops = nodesOf(inlineCalls(graph.outputs)).map(({ op }) => op);
    expect(ops.filter((op) => op === 'exp').length).toBe(2);
    expect(ops).not.toContain('call');
  });
});

describe('the verifier', () => {
  const good = trace('good', (x) => x.exp(), f32(2)).graph;
  const broken = (change: Partial<Graph>): Graph => ({ ...good, ...change });
  const [inputNode, expNode] = good.nodes as [Node, Node];

  it('passes what tracing makes', () => {
    expect(() => verify(good, 'test')).not.toThrow();
  });

  it.each<[string, Graph, RegExp]>([
    [
      'an undeclared input',
      broken({ inputs: [] }),
      /^test: graph good: node 0, input\(\) -> f32\[2\], made at .*: input 0 is not declared$/,
    ],
    [
      'a use before its making',
      broken({ nodes: [expNode, inputNode] }),
      /node 0, exp\(f32\[2\]\) -> f32\[2\], made at .*graph\.test\.ts:\d+:\d+: operand f32\[2\] is used before it is made/,
    ],
    [
      'a wrong result type',
      broken({ nodes: [inputNode, { ...expNode, results: [input('z', f32(3))] } as Node] }),
      /its shape rule gives f32\[2\]/,
    ],
    [
      'an output from elsewhere',
      broken({ outputs: [input('y', f32(1))] }),
      /output f32\[1\] is not made in it/,
    ],
    [
      'two outputs of one name',
      broken({ outputs: [good.outputs[0]!, good.outputs[0]!], outputNames: ['a', 'a'] }),
      /two outputs are named a/,
    ],
  ])('names %s', (_, graph, message) => {
    expect(() => verify(graph, 'test')).toThrow(message);
  });

  it('looks into called graphs', () => {
    const bad = broken({ nodes: [expNode, inputNode] });
    const x = input('x', f32(2));
    const caller = makeGraph('caller', [x], apply('call', [x], { graph: bad, recompute: false }));
    expect(() => verify(caller, 'test')).toThrow(/graph good: node 0/);
  });

  it('says where a node was made', () => {
    expect(sourceOf(expNode)).toMatch(/graph\.test\.ts:\d+:\d+$/);
  });
});

describe('trees', () => {
  const tree = { b: [f32(1), f32(2)], a: { deep: f32(3), missing: undefined } };

  it('name leaves by path, in order of insertion', () => {
    expect(entries(tree).map(([path]) => path)).toEqual(['b.0', 'b.1', 'a.deep']);
    expect(leaves(tree)).toEqual([f32(1), f32(2), f32(3)]);
  });

  it('keep their form', () => {
    expect(mapTree(tree, (leaf) => ({ ...leaf, dtype: 'i32' as const })).b[1]).toEqual({
      shape: [2],
      dtype: 'i32',
    });
    expect(withLeaves(tree, leaves(tree))).toEqual({ b: tree.b, a: { deep: f32(3) } });
    expect(() => entries({ a: 1 })).toThrow('tree entry a is 1');
  });
});
