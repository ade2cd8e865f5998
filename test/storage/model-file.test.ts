import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { linearSpec } from '../../src/nn/linear.ts';
import { initialize, parameter } from '../../src/nn/parameters.ts';
import { keyFromSeed } from '../../src/random/philox.ts';
import { fitParameters, readModel, writeModel } from '../../src/storage/model-file.ts';
import { entryOf, writeSafetensors } from '../../src/storage/safetensors.ts';
import { f16ToF32, f32ToF16 } from '../../src/tensor/float16.ts';
import { toFloat32 } from '../../src/tensor/host-tensor.ts';
import { leaves } from '../../src/tensor/tree.ts';

const spec = { layers: [linearSpec(3, 5), linearSpec(5, 2)], scale: parameter([2], { kind: 'ones' }) };
const parameters = initialize(spec, keyFromSeed(3));
const config = { width: 5, names: ['a'] };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-model-'));
});
afterAll(() => rm(folder, { recursive: true }));

it('gives back the configuration, the parameters and where they come from', async () => {
  const path = join(folder, 'a.safetensors');
  await writeModel(path, { kind: 'autoencoder', config, parameters, provenance: { steps: '7' } });
  const model = await readModel(path, 'autoencoder');
  expect(model.config).toEqual(config);
  expect(model.provenance).toEqual({ steps: '7' });
  expect(fitParameters(spec, model.parameters, path)).toEqual(parameters);
  expect((await readdir(folder)).filter((name) => name.includes('tmp'))).toEqual([]);
});

it('stores 16 bits and loads 32', async () => {
  const path = join(folder, 'half.safetensors');
  await writeModel(path, { kind: 'transformer', config, parameters, dtype: 'f16' });
  const fitted = fitParameters(spec, (await readModel(path, 'transformer')).parameters, path);
  for (const [i, tensor] of leaves(fitted).entries()) {
    const original = toFloat32(leaves(parameters)[i]!);
    expect(toFloat32(tensor)).toEqual(f16ToF32(f32ToF16(original)));
  }
});

it('refuses other kinds, files without a model, and parameters that do not fit', async () => {
  const path = join(folder, 'b.safetensors');
  await writeModel(path, { kind: 'autoencoder', config, parameters });
  await expect(readModel(path, 'transformer')).rejects.toThrow(
    `${path}: holds a model of kind autoencoder; give one of kind transformer`,
  );
  const plain = join(folder, 'plain.safetensors');
  await writeSafetensors(plain, [entryOf('scale', parameters.scale)]);
  await expect(readModel(plain, 'transformer')).rejects.toThrow('holds tensors but no Zoetrope model');

  const { parameters: found } = await readModel(path, 'autoencoder');
  const wider = { ...spec, layers: [linearSpec(3, 5), linearSpec(5, 4)] };
  expect(() => fitParameters(wider, found, 'f')).toThrow(
    /^f: parameter layers\.1\.weight is f32\[.*\], expected f32\[.*\]; the file does not fit/,
  );
  const longer = { ...spec, shift: parameter([2], { kind: 'zeros' }) };
  expect(() => fitParameters(longer, found, 'f')).toThrow('f: parameter shift is missing; expected f32[2]');
  const shorter = { layers: spec.layers };
  expect(() => fitParameters(shorter, found, 'f')).toThrow(
    'f: parameter scale is in the file but not in the model',
  );
});
