import { describe, expect, it } from 'vitest';
import { openExecutor } from '../../src/app.ts';
import { type DeviceBuffer, disposeAll, uploadTree } from '../../src/executors/executor.ts';
import { captionBytes } from '../../src/models/text/caption-bytes.ts';
import { encodeText } from '../../src/models/text/text-encoder.ts';
import { patchChannels, type TransformerConfig } from '../../src/models/transformer/config.ts';
import { packTokens } from '../../src/models/transformer/patches.ts';
import { layoutSequence, type SequenceBudget, videoTokensOf } from '../../src/models/transformer/sequence.ts';
import { sampledVelocity, transformer, transformerSpec } from '../../src/models/transformer/transformer.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';

const config: TransformerConfig = {
  channels: 3,
  patch: [1, 2, 1],
  width: 32,
  headSize: 16,
  layers: 2,
  hidden: 48,
  text: { width: 16, headSize: 8, layers: 1, hidden: 24 },
};
const key = keyFromSeed(5);
const channels = patchChannels(config);

/** Weights of which none is zero: those that start so would hide what lies behind them. */
const weights = mapTree(transformerSpec(config), (leaf, path) => {
  const { shape } = leaf as TensorType;
  return fromFloat32(
    'f32',
    shape,
    normal(fold(key, path), elementCount(shape)).map((x) => 0.3 * x),
  );
});

const sample = (text: string, grid: readonly [number, number, number], name: string) => {
  const tokens = videoTokensOf(grid);
  return {
    text: captionBytes(text, 20),
    grid,
    patches: normal(fold(key, name), tokens * channels),
    timesteps: uniform(fold(key, `${name} t`), tokens).map((t) => (t < 0.3 ? 0 : t)),
  };
};
const samples = [
  sample('a red ball', [2, 3, 2], 'first'),
  sample('', [1, 2, 2], 'still'),
  sample('two blue cubes bounce in the rain', [3, 1, 3], 'third'),
];

async function run(graphOf: () => ReturnType<typeof trace>['graph'], inputs: readonly object[]) {
  await using executor = await openExecutor('reference');
  using executable = await executor.compile(graphOf());
  const buffers = uploadTree(executor, [...inputs] as object);
  const [output] = await executor.run(executable, leaves(buffers) as DeviceBuffer[]);
  const values = toFloat32(await executor.download(output!));
  disposeAll([buffers, output!]);
  return values;
}

const typesOf = (tree: object) =>
  mapTree(tree, (leaf) => ({
    shape: (leaf as HostTensor).shape,
    dtype: (leaf as HostTensor).dtype,
  })) as never;

/** All samples in two packed rows with padding, as training has them: each sample's velocities. */
async function packedVelocities(): Promise<Float32Array[]> {
  const budget: SequenceBudget = { rows: 2, textTokens: 14, videoTokens: 18, segments: 3, conditions: 20 };
  const rows = [[samples[0]!, samples[1]!], [samples[2]!]];
  const inputs = {
    patches: packTokens(
      budget,
      channels,
      rows.map((row) => row.map(({ patches }) => patches)),
    ),
    sequence: { ...layoutSequence(config, budget, rows) },
  };
  const all = await run(
    () =>
      trace('packed', (p, x) => [transformer(p, config, x)], transformerSpec(config), typesOf(inputs)).graph,
    [weights, inputs],
  );
  const at = (token: number, { grid }: (typeof samples)[number]) =>
    all.slice(token * channels, (token + videoTokensOf(grid)) * channels);
  return [at(0, samples[0]!), at(videoTokensOf(samples[0]!.grid), samples[1]!), at(18, samples[2]!)];
}

/** One sample alone, as sampling has it: text first, then a step on rows without padding. */
async function aloneVelocities({ text, grid, patches, timesteps }: (typeof samples)[number], own = weights) {
  const [textTokens, tokens] = [text.length / 4, videoTokensOf(grid)];
  const budget: SequenceBudget = { rows: 1, textTokens, videoTokens: tokens, segments: 1 };
  const { bytes, byteCos, byteSin, byteSegments, cos, sin, places } = layoutSequence(config, budget, [
    [{ text, grid }],
  ]);
  const inputs = {
    bytes,
    textLayout: { cos: byteCos, sin: byteSin, segments: byteSegments },
    layout: { cos, sin, places },
    patches: fromFloat32('f32', [1, tokens, channels], patches),
    timesteps: fromFloat32('f32', [1, tokens], timesteps),
  };
  return await run(
    () =>
      trace(
        'alone',
        (p, x) => [
          sampledVelocity(p, config, {
            text: encodeText(p.text, x.bytes, x.textLayout),
            layout: x.layout,
            patches: x.patches,
            timesteps: x.timesteps,
          }),
        ],
        transformerSpec(config),
        typesOf(inputs) as typeof inputs,
      ).graph,
    [own, inputs],
  );
}

describe('the transformer', () => {
  it('gives samples packed in rows with others and padding what each gives alone', async () => {
    const packed = await packedVelocities();
    for (const [i, one] of samples.entries()) {
      const alone = await aloneVelocities(one);
      expect(alone.some((value) => Math.abs(value) > 0.1)).toBe(true);
      expect(packed[i]!.length).toBe(alone.length);
      // Both are float64 rounded to float32 between graphs' ends alone.
      for (const [j, value] of alone.entries()) expect(packed[i]![j]).toBeCloseTo(value, 5);
    }
  });

  it('hears the text as a whole and word by word', async () => {
    const differ = (a: Float32Array, b: Float32Array) => a.some((value, i) => Math.abs(value - b[i]!) > 1e-3);
    const [one] = samples;
    const other = { ...one!, text: captionBytes('a ball red', 20) };
    const deaf = mapTree(weights, (leaf, path) => {
      const { shape } = leaf as TensorType;
      return path.startsWith('time.text')
        ? fromFloat32('f32', shape, new Float32Array(elementCount(shape)))
        : (leaf as HostTensor<'f32'>);
    }) as typeof weights;
    // Without the text's mean, single words are heard through attention alone; with it, more.
    const words = await aloneVelocities(one!, deaf);
    expect(differ(words, await aloneVelocities(other, deaf))).toBe(true);
    expect(differ(words, await aloneVelocities(one!))).toBe(true);
  });
});
