import { type LatentSpec, latentShapeOf } from '../models/latent-spec.ts';
import { type HostTensor, zeros } from '../tensor/host-tensor.ts';
import { elementCount } from '../tensor/shape.ts';
import type { BatchMaker } from './batch.ts';
import type { Variant, WorldsData } from './recipe.ts';
import { latentCoverage, variantName, worldClip, writePixels } from './world-clips.ts';

/**
 * Renders the planned worlds as one tensor: `{ video: [B, T, H, W, 3] }`, -1 to 1, with their captions.
 * @param latent when given, with the {@link latentCoverage} of each.
 */
export function worldBatchMaker(data: WorldsData, latent?: LatentSpec): BatchMaker {
  const variants = variantsByName(data);
  return async ({ variant: name, clips }) => {
    const variant = variants(name);
    const worlds = clips.map(([world]) => worldClip(data, world ?? 0, variant));
    const video = zeros('f32', videoShape(variant, clips.length));
    const size = elementCount(video.shape.slice(1));
    for (const [i, world] of worlds.entries()) writePixels(world.video, video.data, i * size);
    const captions = worlds.map((world) => world.captions);
    const coverage = latent && worlds.map((world) => latentCoverage(world, latent));
    return { variant: name, values: { video }, facts: {}, captions, ...(coverage && { coverage }) };
  };
}

/** Shape of a batch of pixels, [B, T, H, W, 3]. */
export function videoShape({ frames, height, width }: Variant, clips: number): readonly number[] {
  return [clips, frames, height, width, 3];
}

/** Shape of the latents of a batch of pixels, [B, T', H', W', C]. */
export function latentsShape(variant: Variant, clips: number, latent: LatentSpec): readonly number[] {
  return [clips, ...latentShapeOf(latent, variant.frames, variant)];
}

/** Finds a recipe's variants by name. */
export function variantsByName({ variants }: WorldsData): (name: string) => Variant {
  const byName = new Map(variants.map((variant) => [variantName(variant), variant]));
  return (name) => {
    const variant = byName.get(name);
    if (variant === undefined) throw new Error(`no variant ${name} in the recipe`);
    return variant;
  };
}

/** The pixels of a batch of {@link worldBatchMaker}. */
export function videoOf(values: object): HostTensor<'f32'> {
  return (values as { readonly video: HostTensor<'f32'> }).video;
}
