import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type BenchCase,
  type CaseName,
  cases,
  operations,
  type TransformerCase,
  tinyCase,
} from '../../bench/gpu/cases.ts';
import { configOf, makeWork } from '../../bench/gpu/work.ts';
import { fusedPartition } from '../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../src/executors/nvidia/fusion/prepare.ts';
import { prelude } from '../../src/executors/nvidia/plain/prelude.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import { autoencoderLoss } from '../../src/models/autoencoder/loss.ts';
import { costOf } from '../../src/pipeline/graph-cost.ts';
import { trace } from '../../src/tensor/trace.ts';
import type { Op } from '../../src/tensor/vocabulary.ts';
import { difference, evaluate } from '../executors/comparison.ts';
import { CpuKernels, missingCompiler } from '../executors/nvidia/stand-in/compile.ts';
import { kernelsOf, planStandIn, runStandIn } from '../executors/nvidia/stand-in/stand-in-executor.ts';

const tiny = new Map(
  (Object.entries(cases) as [CaseName, BenchCase][]).map(([name, given]) => [name, tinyCase(given)]),
);

describe('work of the GPU benchmarks', () => {
  it('asks for the operations that are counted for it', () => {
    for (const [name, given] of tiny) {
      if (given.kind === 'autoencoder') continue;
      const { graph } = makeWork({ ...given, work: 'forward' });
      expect(costOf(graph).operations, name).toBe(operations({ ...given, work: 'forward' }));
    }
  });

  it('asks for the operations that are counted for the autoencoder, but for padding', () => {
    const { autoencoder } = cases;
    const { clips, frames, side, latentChannels } = autoencoder;
    const config = configOf(autoencoder);
    const { graph } = trace(
      'loss',
      (p, video, noise) => [autoencoderLoss(p, config, video, noise).loss],
      autoencoderSpec(config),
      { shape: [clips, frames, side, side, 3], dtype: 'f32' },
      { shape: [clips, 1 + (frames - 1) / 4, side / 8, side / 8, latentChannels], dtype: 'f32' },
    );
    const ratio = costOf(graph).operations / (operations(autoencoder) / 3);
    expect(ratio).toBeGreaterThan(0.99);
    expect(ratio).toBeLessThan(1.02);
  });

  it('has the shapes of the published figures', () => {
    expect(operations(cases.wan) / 1e12).toBeCloseTo(283, 0);
    expect(operations(cases.step64) / 1e12).toBeCloseTo(158.5, 0);
    expect(operations(cases.step128)).toBe(operations(cases.step64));
  });
});

describe('recomputation', () => {
  it('takes a fraction of the memory on the GPU: what is computed again waits until it is needed', () => {
    const given = { ...(tiny.get('step64') as TransformerCase), layers: 12, tokens: 2048 };
    const [kept, recomputed] = [false, true].map((recompute) => {
      const { graph, donate } = makeWork(given, { recompute });
      const libraries: Op[] = ['attention', 'attentionGradient'];
      return planStandIn(graph, { prepare, partition: fusedPartition }, donate, libraries).program.arenaBytes;
    }) as [number, number];
    expect(recomputed / kept).toBeLessThan(0.25);
  });
});

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `work of the GPU benchmarks on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    // As compare.ts has it: with the precision bf16 the weights of forward passes are given in bf16.
    const works = [...tiny].flatMap(([name, given]) =>
      [false, true].map((isNarrow) => {
        const generator = { prepare, partition: fusedPartition, isNarrow };
        const work = makeWork(given, { weights: isNarrow ? 'bf16' : 'f32' });
        const plan = planStandIn(work.graph, generator, work.donate, ['attention', 'attentionGradient']);
        return { name: isNarrow ? `${name} in bf16` : name, work, plan, tolerance: isNarrow ? 2e-2 : 2e-5 };
      }),
    );
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      compiled = await CpuKernels.compile(
        prelude,
        works.flatMap(({ plan }) => kernelsOf(plan)),
      );
    }, 300_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it.each(works)('$name gives the numbers of the reference', async ({ work, plan, tolerance }) => {
      const { graph, values } = work;
      const expected = await evaluate(new ReferenceExecutor(), graph, values);
      const found = runStandIn(plan, compiled!, values);
      expected.forEach((tensor, index) => {
        expect(difference(found[index]!, tensor, tolerance), graph.outputNames[index]!).toBeUndefined();
      });
    });
  },
);

describe('the comparison with PyTorch', () => {
  const folder = resolve(import.meta.dirname, '../../bench/gpu');

  const python = spawnSync('python3', ['--version']).status === 0;
  it.skipIf(!python)(`has a Python side that can be read${python ? '' : ': needs python3'}`, () => {
    const check = 'import ast, sys; ast.parse(open(sys.argv[1]).read())';
    const { status, stderr } = spawnSync('python3', ['-c', check, join(folder, 'peer.py')], {
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(status).toBe(0);
  });
});
