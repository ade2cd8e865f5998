import { expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { concat } from '../../../src/tensor/functions.ts';
import type { Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { planStandIn } from './stand-in/stand-in-executor.ts';

const type = { shape: [64, 64], dtype: 'f32' } as const;
type Build = (a: Tensor, b: Tensor) => Tensor;
/** Pairs of functions that are alike but for one thing. */
const pairs: Readonly<Record<string, readonly [Build, Build]>> = {
  constants: [(a) => a.mul(2).exp(), (a) => a.mul(3).exp()],
  'signs of zero': [(a) => a.mul(0).exp(), (a) => a.mul(-0).exp()],
  attributes: [(a) => a.slice(1, 0, 32).exp(), (a) => a.slice(1, 32, 64).exp()],
  sharing: [(a) => a.exp().mul(a.sin()), (a, b) => a.exp().mul(b.sin())],
  places: [
    (a, b) => concat([a.exp(), b.slice(1, 0, 32).sin()], 1),
    (a, b) => concat([b.slice(1, 0, 32).sin(), a.exp()], 1),
  ],
  'sharing of reads': [(a, b) => a.exp().mul(b.sin()).add(a), (a, b) => a.exp().mul(b.sin()).add(b)],
  axes: [(a) => a.sum([1]), (a) => a.sum([1], true)],
  reductions: [(a) => a.exp().sum([1]), (a) => a.exp().max([1])],
};
/** Names of the kernels of a graph of these functions, each of inputs of its own; a name is its source's digest. */
function kernels(...builds: Build[]) {
  const types = builds.flatMap(() => [type, type]);
  const { graph } = trace(
    'g',
    (...x) => builds.map((build, i) => build(x[2 * i] as Tensor, x[2 * i + 1] as Tensor)),
    ...types,
  );
  const { stages } = planStandIn(graph, { prepare, partition: fusedPartition } as never);
  return stages.flatMap((s) => (s.kind === 'kernel' ? [s.kernel.name] : [])).sort();
}
it.each(Object.entries(pairs))('what is planned once for alike parts tells apart %s', (_, [f, g]) => {
  expect(kernels(f, g)).toEqual([...kernels(f), ...kernels(g)].sort());
});
