import { gridOf, patchify } from '../models/transformer/patches.ts';
import { videoTokensOf } from '../models/transformer/sequence.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import { fold, keyFromSeed, normal } from '../random/philox.ts';
import type { MeasureHooks } from './autoencoder-quality.ts';
import { type ClipShape, heldOutClip } from './held-out-clips.ts';

/** The flow loss at one timestep. */
export interface FlowLossAt {
  /** 0 (clean) to 1 (noise). */
  readonly timestep: number;
  /** Mean squared error of the velocity over all values of all clips. */
  readonly loss: number;
}

/** Timesteps at which the loss is measured: the middles of ten equal parts. */
export const lossTimesteps: readonly number[] = Array.from({ length: 10 }, (_, i) => (i + 0.5) / 10);

/**
 * The loss that training lowers (rectified flow, Liu et al. 2022, eq. 1), by timestep, on rendered worlds of the held-out
 * split under their medium captions, with all frames unknown: noise and clips are the same for every model, so that
 * figures can be compared.
 * @throws the signal's reason when it is aborted.
 */
export async function measureFlowLoss(
  { codec, config, field }: Pick<VideoModel, 'codec' | 'config' | 'field'>,
  shape: ClipShape,
  { seed, clips }: { readonly seed: number; readonly clips: number },
  { signal, onProgress }: MeasureHooks = {},
): Promise<FlowLossAt[]> {
  const sums = lossTimesteps.map(() => 0);
  for (let index = 0; index < clips; index++) {
    const { video, caption } = heldOutClip(seed, index, shape);
    const latents = await codec.encode(video);
    const [frames = 0, rows = 0, columns = 0] = latents.shape;
    const grid = gridOf(config, [frames, rows, columns]);
    const clean = patchify(config, latents);
    const noise = normal(fold(fold(keyFromSeed(seed), 'flow loss'), index), clean.length);
    using velocity = await field.under(caption, grid);
    for (const [i, timestep] of lossTimesteps.entries()) {
      signal?.throwIfAborted();
      const mixed = clean.map((value, k) => value + timestep * ((noise[k] ?? 0) - value));
      const found = await velocity(mixed, new Float32Array(videoTokensOf(grid)).fill(timestep));
      sums[i] = (sums[i] ?? 0) + velocityError(found, clean, noise) / clips;
      onProgress?.(index * lossTimesteps.length + i + 1);
    }
  }
  return lossTimesteps.map((timestep, i) => ({ timestep, loss: sums[i] ?? 0 }));
}

/** Mean squared difference from the velocity noise - clean. */
function velocityError(found: Float32Array, clean: Float32Array, noise: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < found.length; i++) {
    sum += ((found[i] ?? 0) - ((noise[i] ?? 0) - (clean[i] ?? 0))) ** 2;
  }
  return sum / Math.max(1, found.length);
}
