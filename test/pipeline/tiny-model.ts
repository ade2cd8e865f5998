import { join } from 'node:path';
import type { Executor } from '../../src/executors/executor.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../../src/models/autoencoder/config.ts';
import type { TransformerConfig } from '../../src/models/transformer/config.ts';
import { transformerSpec } from '../../src/models/transformer/transformer.ts';
import type { VideoModelWeights } from '../../src/pipeline/model-files.ts';
import { VideoModel } from '../../src/pipeline/video-model.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { fileDigest } from '../../src/storage/file-digest.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../src/tensor/shape.ts';
import { mapTree, type TreeOf } from '../../src/tensor/tree.ts';
import { type Video, videoFrom } from '../../src/video/frames.ts';

const autoencoder: AutoencoderConfig = {
  latentChannels: 4,
  channels: [4, 5, 6],
  encoderBlocks: [1, 1, 0],
  decoderBlocks: [1, 1, 0],
  latentMean: [0.1, -0.2, 0, 0.3],
  latentStd: [0.5, 1, 2, 1],
};

const transformer: TransformerConfig = {
  channels: 4,
  patch: [1, 1, 1],
  width: 32,
  headSize: 16,
  layers: 2,
  hidden: 48,
  text: { width: 16, headSize: 16, layers: 1, hidden: 32 },
};

/** Values everywhere, zeros nowhere: each part of a model has an effect. */
function drawn<Spec extends object>(spec: Spec, seed: number): TreeOf<Spec, HostTensor> {
  return mapTree(spec, (leaf, path) => {
    const { shape } = leaf as TensorType;
    const inputs = elementCount(shape) / (shape[0] ?? 1);
    const values = normal(fold(keyFromSeed(seed), path), elementCount(shape));
    const scale = shape.length > 1 ? inputs ** -0.5 : 0.3;
    return fromFloat32(
      'f32',
      shape,
      values.map((value) => scale * value + (shape.length > 1 ? 0 : 0.5)),
    );
  });
}

/** A model of a few thousand random weights: it makes noise, but all of its parts work. */
export const tinyWeights: VideoModelWeights = {
  name: 'tiny',
  autoencoder: { config: autoencoder, parameters: drawn(autoencoderSpec(autoencoder), 1) },
  transformer: { config: transformer, parameters: drawn(transformerSpec(transformer), 2) },
};

/** The tiny model's weights with another autoencoder for the same latents. */
export function tinyWeightsWith(config: Partial<AutoencoderConfig>): VideoModelWeights {
  const changed = { ...autoencoder, ...config };
  return {
    ...tinyWeights,
    autoencoder: { config: changed, parameters: drawn(autoencoderSpec(changed), 1) },
  };
}

/** The tiny model on an executor, which it disposes. */
export function tinyModel(executor: Executor): VideoModel {
  return new VideoModel(executor, tinyWeights);
}

/** Writes the tiny model's files. */
export async function writeTinyModel(folder: string): Promise<void> {
  const path = join(folder, 'autoencoder.safetensors');
  await writeModel(path, { kind: 'autoencoder', ...tinyWeights.autoencoder });
  await writeModel(join(folder, 'transformer.safetensors'), {
    kind: 'transformer',
    ...tinyWeights.transformer,
    provenance: { autoencoder: await fileDigest(path) },
  });
}

/** A smooth moving pattern. */
export function pattern(frames: number, width = 16, height = 16, rate = 12): Video {
  const data = new Uint8Array(frames * height * width * 3);
  let i = 0;
  for (let t = 0; t < frames; t++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 3; c++) data[i++] = 128 + 100 * Math.sin(x / 3 + y / (4 + c) + t / 5 + c);
  return videoFrom(data, { width, height, rate });
}

/** All pieces of a stream. */
export async function collect(stream: AsyncIterable<Video>): Promise<Video[]> {
  const pieces: Video[] = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}
