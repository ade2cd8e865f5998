import { describe, expect, it } from 'vitest';
import type { TransformerConfig } from '../../src/models/transformer/config.ts';
import { samplingSettings } from '../../src/pipeline/request.ts';
import { type Passage, sampleLatents } from '../../src/pipeline/sampling.ts';
import type { VelocityField } from '../../src/pipeline/velocity-field.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
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

describe('guidance beside known frames', () => {
  const config: TransformerConfig = { ...tinyWeights.transformer.config, patch: [1, 2, 2] };
  /** A velocity of 1 everywhere under the prompt, of 0 under the negative one. */
  const field = {
    under: async (prompt: string) =>
      Object.assign(
        async (patches: Float32Array) => new Float32Array(patches.length).fill(prompt === '' ? 0 : 1),
        {
          [Symbol.dispose]: () => undefined,
        },
      ),
  } as unknown as VelocityField;
  const [T, inFrame] = [10, 4 * 4 * 4];

  /** By how many times the prompt's own velocity each latent frame was moved: its scale of guidance. */
  async function scales(guidance: number, knownFrames: readonly number[]): Promise<number[]> {
    const request = { prompt: 'p', seed: 1, steps: 3 };
    const known = knownFrames.map((at) => ({
      at,
      latents: fromFloat32('f32', [1, 4, 4, 4], new Float32Array(inFrame).fill(9)),
    }));
    const end = async (field: VelocityField) => {
      const settings = samplingSettings({ ...request, guidance });
      return (await sampleLatents(field, config, { shape: [T, 4, 4, 4], known }, settings)).data;
    };
    const [start, moved] = [await end(still), await end(field)];
    return Array.from({ length: T }, (_, frame) => {
      const shifts = Array.from(
        { length: inFrame },
        (_, i) => start[frame * inFrame + i]! - moved[frame * inFrame + i]!,
      );
      for (const shift of shifts) expect(shift).toBeCloseTo(shifts[0]!, 5);
      return shifts[0]!;
    });
  }
  const close = (found: readonly number[], expected: readonly number[]) => {
    for (const [i, scale] of found.entries()) expect(scale).toBeCloseTo(expected[i]!, 5);
  };

  it('rises from that of the prompt alone to the whole over six latent frames', async () => {
    close(await scales(4, [0]), [0, 1.5, 2, 2.5, 3, 3.5, 4, 4, 4, 4]);
    close(await scales(4, [0, 1, 9]), [0, 0, 1.5, 2, 2.5, 3, 2.5, 2, 1.5, 0]);
    close(await scales(1, [0]), [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
  });

  it('is whole everywhere without any', async () => {
    close(await scales(4, []), new Array<number>(T).fill(4));
  });
});

it.each([[[1, 1, 1]], [[1, 2, 2]], [[2, 1, 1]]] as const)(
  'corrects the latent frames that are named and not known, in patches of %j',
  async (patch) => {
    const config: TransformerConfig = { ...tinyWeights.transformer.config, patch };
    const [T, inFrame] = [8, 4 * 4 * 4];
    const settings = samplingSettings({ prompt: '', seed: 7, steps: 30 });
    const whole = (level: number) =>
      fromFloat32('f32', [T, 4, 4, 4], new Float32Array(T * inFrame).fill(level));
    const known = [
      { at: 0, latents: fromFloat32('f32', [2, 4, 4, 4], new Float32Array(2 * inFrame).fill(9)) },
    ];
    const expected: Float32Array[] = [];
    const correction = {
      frames: new Set([0, 1, 4, 5]),
      better: async (latents: HostTensor<'f32'>) => {
        expected.push(latents.data);
        return whole(50);
      },
    };
    const sampled = async (passage: Passage) => (await sampleLatents(still, config, passage, settings)).data;
    const shape = [T, 4, 4, 4] as const;
    const [start, found] = [await sampled({ shape, known }), await sampled({ shape, known, correction })];
    // Of a field that stands still the latents themselves are expected.
    expect(expected).toHaveLength(6);
    expect(expected[0]).toEqual(start);
    const frame = (values: Float32Array, k: number) => values.subarray(k * inFrame, (k + 1) * inFrame);
    for (let k = 0; k < T; k++) {
      if (k === 4 || k === 5) for (const value of frame(found, k)) expect(value).toBeGreaterThan(40);
      else expect(frame(found, k)).toEqual(frame(start, k));
    }
  },
);
