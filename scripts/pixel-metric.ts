/**
 * `node scripts/pixel-metric.ts FROM.safetensors TO.safetensors [--power 1] [--clips 64] [--device cpu]`: the same
 * autoencoder with latents in the metric of pixels (`src/training/latent-metric.ts`), measured on worlds of its recipe.
 */

import { parseArgs } from 'node:util';
import { openExecutor } from '../src/app.ts';
import { autoencoderSpec } from '../src/models/autoencoder/autoencoder.ts';
import { checkAutoencoderConfig } from '../src/models/autoencoder/config.ts';
import { fileDigest } from '../src/storage/file-digest.ts';
import { fitParameters, readModel, writeModel } from '../src/storage/model-file.ts';
import { fromFloat32, toFloat32 } from '../src/tensor/host-tensor.ts';
import { mapTree } from '../src/tensor/tree.ts';
import { LatentEncoder } from '../src/training/latent-encoder.ts';
import {
  inPixelMetric,
  latentCovariance,
  type MeasuredAutoencoder,
  pixelInfluence,
} from '../src/training/latent-metric.ts';
import type { WorldsData } from '../src/training/recipe.ts';
import { worldBatchMaker } from '../src/training/world-batches.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    power: { type: 'string', default: '1' },
    clips: { type: 'string', default: '64' },
    device: { type: 'string', default: 'cpu' },
  },
});
const [from, to] = positionals;
if (from === undefined || to === undefined) throw new Error('usage: node scripts/pixel-metric.ts FROM TO');

/** Clips of which each channel is moved; the covariance is of all. */
const movedClips = Math.min(16, Number(values.clips));

await using executor = await openExecutor(values.device as 'cpu');
const model = await readModel(from, 'autoencoder');
const config = checkAutoencoderConfig(model.config);
const stored = fitParameters(autoencoderSpec(config), model.parameters, from);
const parameters = mapTree(stored, (leaf) => {
  const tensor = leaf as Parameters<typeof toFloat32>[0];
  return fromFloat32('f32', tensor.shape, toFloat32(tensor));
}) as unknown as MeasuredAutoencoder['parameters'];
const recipe = JSON.parse(model.provenance.recipe ?? '') as { readonly data: WorldsData };
const data = { ...recipe.data, choices: { counts: [1, 1, 1, 2], cameras: ['still'] } as const };
const variant = { width: 64, height: 64, frames: 25, weight: 1, clips: 8 };
const make = worldBatchMaker({ ...data, variants: [variant] });
using encoder = new LatentEncoder(executor, config, parameters);
const latents = [];
for (let first = 0; first < Number(values.clips); first += 8) {
  const clips = Array.from({ length: 8 }, (_, i) => [first + i]);
  const { values: batch } = await make({ step: 0, number: 0, variant: '64x64x25', clips });
  latents.push(...(await encoder.encode((batch as { video: Parameters<typeof encoder.encode>[0] }).video)));
}
const measured = { config, parameters };
const influence = await pixelInfluence(executor, measured, latents.slice(0, movedClips));
const found = inPixelMetric(measured, influence, latentCovariance(config, latents), Number(values.power));
const provenance = { ...model.provenance, pixelMetric: values.power, convertedFrom: await fileDigest(from) };
await writeModel(to, { kind: 'autoencoder', ...found, provenance, dtype: 'f16' });
