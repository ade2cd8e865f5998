import { afterAll, describe, expect, it } from 'vitest';
import { uploadTree } from '../../src/executors/executor.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { captionBytes } from '../../src/models/text/caption-bytes.ts';
import { packTokens } from '../../src/models/transformer/patches.ts';
import { layoutSequence, sequenceTypes } from '../../src/models/transformer/sequence.ts';
import { transformer, transformerSpec } from '../../src/models/transformer/transformer.ts';
import { costOf } from '../../src/pipeline/graph-cost.ts';
import { VelocityField } from '../../src/pipeline/velocity-field.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { matmul } from '../../src/tensor/functions.ts';
import { toFloat32 } from '../../src/tensor/host-tensor.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { block, trace } from '../../src/tensor/trace.ts';
import { leaves } from '../../src/tensor/tree.ts';
import { tinyWeights } from './tiny-model.ts';

const { config, parameters } = tinyWeights.transformer;
const executor = openOnnxExecutor();
afterAll(() => executor[Symbol.asyncDispose]());

const grids = [
  [3, 2, 2],
  [1, 3, 2],
] as const;
const prompts = ['a red ball bounces', 'ein roter Würfel 🟥 dreht sich sehr langsam'] as const;
const values = (name: string, count: number) => normal(fold(keyFromSeed(4), name), count);
const samples = grids.map(([t, h, w], i) => ({
  patches: values(`patches ${i}`, t * h * w * 4),
  timesteps: uniform(fold(keyFromSeed(4), `timesteps ${i}`), t * h * w).map((value, n) =>
    n < 4 ? 0 : value,
  ),
}));

/** Both samples in one packed row with padding, as training has it, in float64. */
async function packed(): Promise<Float32Array> {
  const texts = prompts.map((prompt) => captionBytes(prompt, 100));
  const budget = { rows: 1, textTokens: 40, videoTokens: 24, segments: 3, conditions: 24 };
  const rows = [texts.map((text, i) => ({ text, grid: grids[i]!, timesteps: samples[i]!.timesteps }))];
  const sequence = layoutSequence(config, budget, rows);
  const { graph } = trace(
    'packed',
    (p, patches, s) => [transformer(p, config, { patches, sequence: s })],
    transformerSpec(config),
    { shape: [1, 24, 4], dtype: 'f32' },
    sequenceTypes(config, budget),
  );
  await using reference = new ReferenceExecutor();
  const executable = await reference.compile(graph);
  const inputs = uploadTree(reference, [
    parameters,
    packTokens(budget, 4, [samples.map(({ patches }) => patches)]),
    { ...sequence },
  ]);
  const [velocity] = await reference.run(executable, leaves(inputs) as never);
  return toFloat32(await reference.download(velocity!));
}

describe('a velocity field', () => {
  it('gives what the packed transformer of training gives', async () => {
    const expected = await packed();
    using field = new VelocityField(executor, config, parameters);
    let offset = 0;
    for (const [i, { patches, timesteps }] of samples.entries()) {
      using velocity = await field.under(prompts[i]!, grids[i]!);
      const found = await velocity(patches, timesteps);
      // Rounding of float32 through two layers.
      for (const [n, value] of found.entries()) expect(value).toBeCloseTo(expected[offset + n]!, 4);
      offset += found.length;
    }
    expect(Math.max(...expected.map(Math.abs))).toBeGreaterThan(0.5);
  });

  it('keeps what it compiled, and lets the oldest go when there are many shapes', async () => {
    let compiled = 0;
    const counting = Object.create(executor, {
      compile: {
        value: (...given: Parameters<typeof executor.compile>) => {
          compiled++;
          return executor.compile(...given);
        },
      },
    }) as typeof executor;
    using field = new VelocityField(counting, config, parameters);
    const use = async (frames: number) => {
      using velocity = await field.under('x', [frames, 1, 1]);
      await velocity(new Float32Array(4 * frames), new Float32Array(frames));
    };
    await use(1);
    expect(compiled).toBe(2);
    await use(1);
    expect(compiled).toBe(2);
    // One that is in use stays, however many others come.
    using held = await field.under('x', [1, 1, 1]);
    for (let frames = 2; frames < 14; frames++) await use(frames);
    expect((await held(new Float32Array(4), new Float32Array(1))).length).toBe(4);
    const before = compiled;
    await use(2);
    expect(compiled).toBe(before + 1);
  });
});

describe('the cost of a graph', () => {
  it('counts products, those in calls once for each call', () => {
    const layer = block('layer', (x: Tensor, w: Tensor) => matmul(x, w));
    const { graph } = trace(
      'twice',
      (x, w) => [layer(layer(x, w), w)],
      { shape: [3, 4], dtype: 'f32' },
      { shape: [4, 4], dtype: 'f32' },
    );
    // Two products of 3x4x4; of three values of 3x4, two are there at once, and the input is not counted.
    expect(costOf(graph)).toEqual({ operations: 2 * 2 * 3 * 4 * 4, peakBytes: 2 * 3 * 4 * 4 });
  });
});
