/**
 * `node scripts/ship-weights.ts FROM.safetensors TO.safetensors`: a trained model as it is shipped: 16-bit weights,
 * configuration and provenance as they are.
 */

import { statSync } from 'node:fs';
import { autoencoderSpec } from '../src/models/autoencoder/autoencoder.ts';
import { checkAutoencoderConfig } from '../src/models/autoencoder/config.ts';
import { checkTransformerConfig } from '../src/models/transformer/config.ts';
import { transformerSpec } from '../src/models/transformer/transformer.ts';
import { fileDigest } from '../src/storage/file-digest.ts';
import { fitParameters, type ModelKind, readModel, writeModel } from '../src/storage/model-file.ts';
import { openSafetensors } from '../src/storage/safetensors.ts';

const [from, to] = process.argv.slice(2);
if (from === undefined || to === undefined) throw new Error('usage: node scripts/ship-weights.ts FROM TO');

const kind = await kindOf(from);
const model = await readModel(from, kind);
const [config, spec] = described(kind, model.config);
const parameters = fitParameters(spec, model.parameters, from);
// A transformer knows its autoencoder by the digest of the file that it was trained with.
const provenance = { ...model.provenance, convertedFrom: await fileDigest(from) };
await writeModel(to, { kind, config, parameters, provenance, dtype: 'f16' });
console.log(`${to}: ${(statSync(to).size / 2 ** 20).toFixed(2)} MiB`);

async function kindOf(path: string): Promise<ModelKind> {
  await using file = await openSafetensors(path);
  return file.metadata.get('kind') === 'autoencoder' ? 'autoencoder' : 'transformer';
}

function described(kind: ModelKind, stored: unknown): readonly [config: object, spec: object] {
  if (kind === 'autoencoder') {
    const config = checkAutoencoderConfig(stored);
    return [config, autoencoderSpec(config)];
  }
  const config = checkTransformerConfig(stored);
  return [config, transformerSpec(config)];
}
