import { describe, expect, it } from 'vitest';
import type { Stage } from '../../../src/executors/nvidia/kernel.ts';
import {
  type Buckets,
  bucketsIn,
  type ProgramStage,
  scheduleCollectives,
} from '../../../src/executors/nvidia/overlap.ts';
import { allReduce, matmul, reduceScatter } from '../../../src/tensor/functions.ts';
import { input } from '../../../src/tensor/graph.ts';
import type { Tensor } from '../../../src/tensor/tensor.ts';

/** 256 bytes each. */
const x = input('x', { shape: [8, 8], dtype: 'f32' });
const stage = ({ node }: Tensor): Stage => ({ kind: 'library', node });
const view = (output: Tensor, of: Tensor): Stage => ({ kind: 'view', input: of, output });
const made = [0, 1, 2, 3].map(() => matmul(x, x)) as [Tensor, Tensor, Tensor, Tensor];
const [a, b, c, d] = made;
const sums = made.map((tensor) => allReduce(tensor)) as [Tensor, Tensor, Tensor, Tensor];

/** A schedule in short: the letter of each stage, `+` and `?` with those of the collectives that start or are waited for. */
function shortForm(stages: readonly ProgramStage[], names: Readonly<Record<string, Tensor>>): string {
  const nameOf = (tensor: Tensor) =>
    Object.entries(names).find(([, other]) => other.node === tensor.node)?.[0] ?? '?';
  return stages
    .map((one) => {
      switch (one.kind) {
        case 'start':
        case 'wait':
          return (
            (one.kind === 'start' ? '+' : '?') + one.nodes.map((node) => nameOf(node.operands[0])).join('')
          );
        case 'view':
          return nameOf(one.output);
        case 'library':
          return nameOf({ node: one.node, index: 0 } as Tensor);
        default:
          return one.kind;
      }
    })
    .join(' ');
}

const schedule = (
  stages: readonly Stage[],
  chosen: number | Buckets,
  more: Readonly<Record<string, Tensor>> = {},
) => shortForm(scheduleCollectives(stages, chosen), { a, b, c, d, ...more });

describe('collectives beside the computation', () => {
  // As a training step is traced: all gradients are named in the order of the parameters, the last first.
  const stages = [a, b, c, d, ...[...sums].reverse()].map(stage);

  it('start in buckets when the last operand is made, in that order, and are waited for at the end', () => {
    expect(schedule(stages, 512)).toBe('a b +ab c d +cd ?ab ?cd');
    expect(schedule(stages, 767)).toBe('a b +ab c d +cd ?ab ?cd');
    expect(schedule(stages, 1 << 20)).toBe('a b c d +abcd ?abcd');
  });

  it('start alone when they are larger than a bucket', () => {
    expect(schedule(stages, 0)).toBe('a +a b +b c +c d +d ?a ?b ?c ?d');
  });

  it('are waited for by what first reads a result, also through a view', () => {
    const rows = sums[1].reshape([64]);
    const back = rows.reshape([8, 8]);
    const last = matmul(back, x);
    const viewed = [...stages, view(rows, sums[1]), view(back, rows), stage(last)];
    expect(schedule(viewed, 512, { v: rows, w: back, z: last })).toBe('a b +ab c d +cd v w ?ab z ?cd');
    const readers = [matmul(sums[0], x), matmul(sums[3], x)] as const;
    const names = { y: readers[0], z: readers[1] };
    expect(schedule([...stages, ...readers.map(stage)], 512, names)).toBe('a b +ab c d +cd ?ab y ?cd z');
  });

  it('start before what knows their result, full or not', () => {
    const next = matmul(sums[0], x);
    const given = [a, sums[0], next, b, sums[1]].map(stage);
    expect(schedule(given, 1 << 20, { z: next })).toBe('a +a ?a z b +b ?b');
    const rows = sums[0].reshape([64]);
    const viewed = [stage(a), stage(sums[0]), view(rows, sums[0]), stage(b), stage(sums[1])];
    expect(schedule(viewed, 1 << 20, { v: rows })).toBe('a +a v b +b ?a ?b');
  });

  it('follow those whose results they take, without the computation between', () => {
    const again = allReduce(sums[0]);
    expect(schedule([a, sums[0], again, b, sums[1]].map(stage), 1 << 20, { s: sums[0] })).toBe(
      'a +a b +bs ?a ?bs',
    );
  });

  it('of what is there from the beginning start before all else', () => {
    expect(schedule([a, allReduce(x), b].map(stage), 512, { x })).toBe('+x a b ?x');
  });

  it('that scatter are waited for when four others have started, since nothing else frees what they read', () => {
    const products = Array.from({ length: 6 }, () => matmul(x, x));
    const scattered = products.map((tensor) => reduceScatter(tensor, 2));
    const names = Object.fromEntries(products.map((tensor, i) => [String(i), tensor]));
    expect(schedule([...products, ...scattered].map(stage), 256, names)).toBe(
      '0 +0 1 +1 2 +2 3 +3 4 +4 ?0 5 +5 ?1 ?2 ?3 ?4 ?5',
    );
  });

  it('are those of another process where they are given, also where operands are made in another order', () => {
    const nodesIn = (schedule: readonly ProgramStage[]) =>
      schedule.flatMap((one) => (one.kind === 'start' ? [one.nodes] : []));
    const buckets = bucketsIn(nodesIn(scheduleCollectives(stages, 512)));
    expect(buckets).toEqual([
      [0, 1],
      [2, 3],
    ]);
    const other = [c, a, d, b, ...sums].map(stage);
    expect(schedule(other, 512)).toBe('c a +ac d b +bd ?ac ?bd');
    expect(schedule(other, buckets)).toBe('c a d b +ab +cd ?ab ?cd');
    expect(bucketsIn(nodesIn(scheduleCollectives(other, buckets)))).toEqual(buckets);
    expect(schedule(stages, buckets)).toBe(schedule(stages, 512));
    expect(() => schedule(other, [[0, 1], [2]])).toThrow('different graphs');
    const early = matmul(sums[2], x);
    expect(() =>
      schedule([c, sums[2], early, a, b, d, sums[0], sums[1], sums[3]].map(stage), buckets),
    ).toThrow('a result is needed before it is exchanged');
  });

  it('leaves a program without any as it is', () => {
    const alone = [a, b].map(stage);
    expect(scheduleCollectives(alone, 512)).toEqual(alone);
  });
});
