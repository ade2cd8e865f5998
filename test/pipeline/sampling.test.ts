import { expect, it } from 'vitest';
import type { TransformerConfig } from '../../src/models/transformer/config.ts';
import { samplingSettings } from '../../src/pipeline/request.ts';
import { sampleLatents } from '../../src/pipeline/sampling.ts';
import type { VelocityField } from '../../src/pipeline/velocity-field.ts';
import { tinyWeights } from './tiny-model.ts';

/** A field that stands still: what is sampled with it is the noise that sampling began with. */
const still = {
  under: async () =>
    Object.assign(async (patches: Float32Array) => new Float32Array(patches.length), {
      [Symbol.dispose]: () => undefined,
    }),
} as unknown as VelocityField;

it.each([[[1, 1, 1]], [[1, 2, 2]]] as const)(
  'a longer video of the same size begins with the noise of a shorter one, in patches of %j',
  async (patch) => {
    const config: TransformerConfig = { ...tinyWeights.transformer.config, patch };
    const noise = async (frames: number, seed: number) => {
      const settings = samplingSettings({ prompt: '', seed, steps: 2 });
      return (await sampleLatents(still, config, { shape: [frames, 4, 6, 4] }, settings)).data;
    };
    const [short, long] = [await noise(3, 7), await noise(5, 7)];
    expect(long.subarray(0, short.length)).toEqual(short);
    expect(new Set(long).size).toBeGreaterThan(0.99 * long.length);
    expect(await noise(3, 8)).not.toEqual(short);
  },
);
