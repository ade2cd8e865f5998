import type { DType } from '../../tensor/dtype.ts';
import { fromFloat32, type HostArray, type HostTensor } from '../../tensor/host-tensor.ts';
import { at, GraphError, type Shape } from '../../tensor/shape.ts';
import type { TimeHeightWidth, TransformerConfig } from './config.ts';
import type { SequenceBudget } from './sequence.ts';

/**
 * Number of patches along each axis of a latent video.
 * @param latents [time, height, width] in latent positions.
 * @throws GraphError when the patch does not divide them.
 */
export function gridOf(
  { patch }: Pick<TransformerConfig, 'patch'>,
  latents: TimeHeightWidth,
): TimeHeightWidth {
  if (latents.some((size, axis) => size % at(patch, axis) !== 0)) {
    throw new GraphError(
      `latents of ${latents.join('x')} positions: patches of ${patch.join('x')} do not fit`,
    );
  }
  return [latents[0] / patch[0], latents[1] / patch[1], latents[2] / patch[2]];
}

/**
 * Cuts latents [T, H, W, C] into patches: [tokens, pt ph pw C], tokens in the order of [t, h, w], values of a patch
 * in the order of [t, h, w, c].
 * @throws GraphError when the patch does not divide the latents.
 */
export function patchify(config: Pick<TransformerConfig, 'patch'>, latents: HostTensor<'f32'>): Float32Array {
  const out = new Float32Array(latents.data.length);
  patchifyInto(config, latents, out, 0);
  return out;
}

/**
 * {@link patchify} into `out` from `offset` on.
 * @throws GraphError when the patch does not divide the latents.
 */
export function patchifyInto<D extends DType>(
  config: Pick<TransformerConfig, 'patch'>,
  { shape, data }: { readonly shape: Shape; readonly data: HostArray<D> },
  out: HostArray<D>,
  offset: number,
): void {
  const [T, H, W, C] = shape as readonly [number, number, number, number];
  eachRun(config, [T, H, W], C, (position, patch, length) =>
    out.set(data.subarray(position, position + length), offset + patch),
  );
}

/**
 * Undoes {@link patchify}.
 * @param grid patches along each axis.
 * @returns latents f32 [T, H, W, channels].
 */
export function unpatchify(
  config: Pick<TransformerConfig, 'patch' | 'channels'>,
  grid: TimeHeightWidth,
  patches: Float32Array,
): HostTensor<'f32'> {
  const { patch, channels } = config;
  const [T, H, W]: TimeHeightWidth = [grid[0] * patch[0], grid[1] * patch[1], grid[2] * patch[2]];
  const out = new Float32Array(T * H * W * channels);
  eachRun(config, [T, H, W], channels, (position, token, length) =>
    out.set(patches.subarray(token, token + length), position),
  );
  return fromFloat32('f32', [T, H, W, channels], out);
}

/** Visits every stretch of values that lies together in latents and patches alike: a row of one patch. */
function eachRun(
  config: Pick<TransformerConfig, 'patch'>,
  latents: TimeHeightWidth,
  channels: number,
  visit: (latentOffset: number, patchOffset: number, length: number) => void,
): void {
  const [pt, ph, pw] = config.patch;
  const [T, H, W] = gridOf(config, latents);
  const length = pw * channels;
  let offset = 0;
  for (let t = 0; t < T; t++)
    for (let h = 0; h < H; h++)
      for (let w = 0; w < W; w++)
        for (let dt = 0; dt < pt; dt++)
          for (let dh = 0; dh < ph; dh++, offset += length) {
            const [frame, line] = [t * pt + dt, h * ph + dh];
            visit(((frame * latents[1] + line) * latents[2] + w * pw) * channels, offset, length);
          }
}

/**
 * Values of video tokens in the order of packed rows: what `layoutSequence` expects beside its tensors.
 *
 * @param rows for each row the values of each sample's tokens, [tokens, channels] each, in the order of the layout.
 * @returns f32 [B, V, channels]; zeros fill up.
 * @throws GraphError when a row is longer than the budget.
 */
export function packTokens(
  { rows: count, videoTokens }: SequenceBudget,
  channels: number,
  rows: readonly (readonly Float32Array[])[],
): HostTensor<'f32'> {
  const size = videoTokens * channels;
  const out = new Float32Array(count * size);
  rows.forEach((samples, row) => {
    let offset = row * size;
    for (const values of samples) {
      if (offset + values.length > (row + 1) * size || row >= count) {
        throw new GraphError(`row ${row} has more than the budget's ${videoTokens} video tokens`);
      }
      out.set(values, offset);
      offset += values.length;
    }
  });
  return fromFloat32('f32', [count, videoTokens, channels], out);
}
