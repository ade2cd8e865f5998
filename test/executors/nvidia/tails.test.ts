import { describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { operandsOfCall, resultsOfCall, type TakesTail } from '../../../src/executors/nvidia/kernel.ts';
import { gemmOfTail } from '../../../src/executors/nvidia/library/matmul.ts';
import { narrowed } from '../../../src/executors/nvidia/narrowing.ts';
import { planProgram } from '../../../src/executors/nvidia/program.ts';
import { ownStorage } from '../../../src/executors/nvidia/storage.ts';
import { type Tail, tailsOf } from '../../../src/executors/nvidia/tails.ts';
import { gelu, layerNorm, matmul } from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { makeGraph } from '../../../src/tensor/graph.ts';
import { inlineCalls } from '../../../src/tensor/rewrite.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import type { Graph, Node, Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';

type Build = (x: Tensor, w: Tensor, b: Tensor, v: Tensor) => readonly Tensor[];

const takes = ({ op }: Node) => op === 'matmul';
const takesTail: TakesTail = (tail, storage) => gemmOfTail(tail, storage) !== undefined;
const shapes: readonly Shape[] = [[6, 4], [4, 8], [8], [8, 3]];

function graphOf(build: Build, [x, w, b, v]: readonly Shape[] = shapes): Graph {
  const type = (shape: Shape | undefined) => ({ shape: shape ?? [], dtype: 'f32' as const });
  const traced = trace('test', (...given) => [...build(...given)], type(x), type(w), type(b), type(v)).graph;
  return makeGraph(traced.name, traced.inputs, inlineCalls(traced.outputs), traced.outputNames);
}

/** How a tail is written in these tests. */
function spelled({ gelu: last, keepsSum }: Tail): string {
  return `bias${last ? ' gelu' : ''}${keepsSum ? ' sum' : ''}`;
}

function found(build: Build, given?: readonly Shape[]): string[] {
  return tailsOf(graphOf(build, given), takes).map(spelled);
}

/** Stages as the executor cuts them, and how tensors are stored. */
function cut(build: Build, isNarrow: boolean, given?: readonly Shape[]) {
  const graph = prepare(graphOf(build, given));
  const { graph: planned, storage } = isNarrow
    ? narrowed(graph, takes, takesTail)
    : { graph, storage: ownStorage };
  const stages = fusedPartition(planned, { takes, takesTail, storage });
  const lower = () => ({ scratch: [], kernels: [], bind: () => [] });
  const { steps } = planProgram(planned, stages, [], lower, storage);
  const calls = stages.flatMap((stage) => (stage.kind === 'library' ? [stage] : []));
  return { stages, storage, calls, names: steps.map(({ name }) => name.split(':')[0]!) };
}

const mlp: Build = (x, w, b, v) => [matmul(gelu(matmul(x, w).add(b)), v)];
const training: Build = (x, w, b, v) => {
  const loss = matmul(gelu(matmul(x, w).add(b)), v)
    .square()
    .sum();
  return [loss, ...gradients(loss, [w, b, v])];
};

describe('tails of products', () => {
  it('are a bias, and a gelu of it, where what they make has to be in memory', () => {
    expect(found(mlp)).toEqual(['bias gelu']);
    expect(found((x, w, b, v) => [matmul(b.add(matmul(x, w)), v)])).toEqual(['bias']);
    expect(found((x, w, b) => [matmul(x, w).add(b)])).toEqual(['bias']);
    expect(found((x, w, b) => [gelu(matmul(x, w).add(b)).reshape([48])])).toEqual(['bias gelu']);
    expect(found((x, w, b, v) => [matmul(matmul(x, w).add(b.reshape([1, 8])), v)])).toEqual(['bias']);
  });

  it('keep the sum that others read beside the gelu', () => {
    expect(found(training)).toEqual(['bias gelu sum']);
    expect(found((x, w, b) => [gelu(matmul(x, w).add(b)), matmul(x, w).add(b).tanh()])).toEqual([
      'bias gelu',
    ]);
  });

  it('are left to kernels that read the sum and make something else of it', () => {
    expect(found((x, w, b) => [layerNorm(matmul(x, w).add(b))])).toEqual([]);
    expect(found((x, w, b, v) => [matmul(gelu(matmul(x, w).add(b)).mul(2), v)])).toEqual([]);
  });

  it('are not where others read the bare product, or what is added is no vector that was given', () => {
    expect(found((x, w, b, v) => [matmul(matmul(x, w).add(b), v), matmul(x, w)])).toEqual(['bias']);
    const shared: Build = (x, w, b, v) => {
      const bare = matmul(x, w);
      return [matmul(bare.add(b), v), bare];
    };
    expect(found(shared)).toEqual([]);
    expect(found((x, w, b, v) => [matmul(matmul(x, w).add(b.exp()), v)])).toEqual([]);
    expect(found((x, w, b) => [matmul(x, w).add(b)], [[6, 4], [4, 8], [6, 1], []])).toEqual([]);
    expect(found((x, w, b) => [matmul(x, w).add(b)], [[6, 4], [4, 8], [6, 8], []])).toEqual([]);
    expect(found((x, w, b) => [matmul(x, w).add(b)], [[6, 4], [4, 8], [2, 1, 8], []])).toEqual([]);
    expect(found((x, w, b) => [matmul(x, w).add(b)], [[1, 4], [4, 8], [8, 8], []])).toEqual([]);
    const twice: Build = (x, w) => {
      const bare = matmul(x, w);
      return [bare.add(bare)];
    };
    expect(found(twice)).toEqual([]);
  });

  it('take the kernel after a product away', () => {
    const { names, calls } = cut(mlp, false);
    expect(names).toEqual(['matmul+bias+gelu', 'matmul']);
    expect(calls.map((call) => [operandsOfCall(call).length, resultsOfCall(call).length])).toEqual([
      [3, 1],
      [2, 1],
    ]);
  });

  it('have a bias in the type of the result, copied with the weights', () => {
    for (const [build, stored] of [
      [mlp, 'bf16'],
      [((x, w, b) => [matmul(x, w).add(b)]) as Build, 'f32'],
    ] as const) {
      const { calls, storage, names } = cut(build, true);
      const call = calls.find(({ tail }) => tail !== undefined)!;
      expect([call.tail!.bias, ...resultsOfCall(call)].map(storage)).toEqual([stored, stored]);
      expect(names.filter((name) => !/^(copies|matmul)/.test(name))).toEqual([]);
    }
  });

  it('of a training step give the gradient what it reads, so that it reads no more', () => {
    for (const isNarrow of [false, true]) {
      const { stages, names } = cut(training, isNarrow);
      expect(names).toContain('matmul+bias+gelu');
      const kernels = stages.flatMap((stage) => (stage.kind === 'kernel' ? [stage] : []));
      const gradient = kernels.find(({ inputs }) => inputs.some(({ node }) => node.op === 'add'));
      expect(gradient!.inputs.map(({ node }) => node.op).sort()).toEqual(['add', 'matmul']);
    }
  });

  it('whose sum has rows of no multiple of 8 elements are left to kernels', () => {
    const odd: readonly Shape[] = [[6, 4], [4, 9], [9], [9, 3]];
    expect(cut(training, true, odd).names).not.toContain('matmul+bias+gelu');
    expect(cut(mlp, true, odd).names).toContain('matmul+bias+gelu');
  });
});
