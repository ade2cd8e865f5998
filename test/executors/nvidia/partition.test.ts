import { describe, expect, it } from 'vitest';
import type { PartitionPolicy, Stage } from '../../../src/executors/nvidia/kernel.ts';
import { partition } from '../../../src/executors/nvidia/plain/partition.ts';
import { planProgram } from '../../../src/executors/nvidia/program.ts';
import { gelu, matmul, pad } from '../../../src/tensor/functions.ts';
import { makeGraph } from '../../../src/tensor/graph.ts';
import { inlineCalls } from '../../../src/tensor/rewrite.ts';
import { constant, type Graph, type Tensor } from '../../../src/tensor/tensor.ts';
import { cases, f32 } from '../cases.ts';
import { forwardGraph, graphOf, halvesOf } from '../comparison.ts';
import { nnCases } from '../nn-cases.ts';

const libraries = ['matmul', 'convolution', 'convolutionInputGradient', 'convolutionKernelGradient'];
const policy: PartitionPolicy = { takes: ({ op }) => libraries.includes(op) };

function stagesOf(graph: Graph): readonly Stage[] {
  const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
  const stages = partition(inlined, policy);
  // Throws when a stage reads, or the graph gives, what no stage before has made.
  planProgram(inlined, stages, [], () => ({ scratch: [], kernels: [], bind: () => [] }));
  return stages;
}

function kernelsOf(build: (...x: Tensor[]) => Tensor, ...shapes: (readonly number[])[]): string[] {
  const graph = forwardGraph({
    name: 'test',
    inputs: shapes.map((shape) => f32(shape)),
    build: (...x) => [build(...x)],
  });
  return stagesOf(graph).map((stage) => (stage.kind === 'kernel' ? stage.kernel.source : stage.kind));
}

describe('partition into kernels', () => {
  it('makes every value of every conformance case before it is used', () => {
    const sources = new Map<string, string>();
    for (const rows of Object.values({ ...cases, ...nnCases }))
      for (const row of rows)
        for (const half of halvesOf(row))
          for (const stage of stagesOf(graphOf(row, half))) {
            if (stage.kind !== 'kernel') continue;
            const { name, source } = stage.kernel;
            expect(sources.get(name) ?? source).toBe(source);
            sources.set(name, source);
            expect(source).toContain(`void ${name}(`);
          }
    expect(sources.size).toBeGreaterThan(500);
  });

  it('writes a chain of elementwise operations as one kernel, numbers inside', () => {
    const kernels = kernelsOf((x, b) => gelu(x!.mul(2).add(b!)).sub(x!), [4, 8], [8]);
    expect(kernels).toHaveLength(1);
    expect(kernels[0]).toContain('2.0');
  });

  it('computes what several kernels use again, if it is made from one tensor', () => {
    const shared = kernelsOf(
      (x) => {
        const y = x!.mul(3).exp();
        return matmul(y.tanh(), y.sin(), { transposeB: true });
      },
      [8, 8],
    );
    expect(shared).toHaveLength(3);
    const kept = kernelsOf(
      (x, z) => {
        const y = x!.mul(z!);
        return matmul(y.tanh(), y.sin(), { transposeB: true });
      },
      [8, 8],
      [8, 8],
    );
    expect(kept).toHaveLength(4);
  });

  it('adds paddings without making them', () => {
    const kernels = kernelsOf((x, y) => pad(x!, [[0, 4]]).add(pad(y!, [[4, 0]])), [4], [4]);
    expect(kernels).toHaveLength(1);
  });

  it('keeps a constant in memory only for those that read it there', () => {
    const weights = constant([1, 2, 3, 4], [2, 2]);
    expect(kernelsOf((x) => matmul(x!, weights), [2, 2])).toEqual(['constant', 'library']);
  });

  it('says which operand an output may take the place of', () => {
    const graph = forwardGraph({
      name: 'test',
      inputs: [f32([4]), f32([4]), f32([2])],
      build: (x, y, z) => [x!.add(y!.mul(pad(z!, [[1, 1]])))],
    });
    const [stage] = stagesOf(graph);
    expect(stage?.kind === 'kernel' && stage.kernel.inPlace).toEqual([
      [0, 0],
      [1, 0],
    ]);
  });
});
