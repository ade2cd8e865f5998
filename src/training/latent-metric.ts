import type { Executor } from '../executors/executor.ts';
import { type DeviceBuffer, disposeAll, uploadTree } from '../executors/executor.ts';
import { type AutoencoderSpec, autoencoderSpec, decode } from '../models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import type { Parameters } from '../nn/parameters.ts';
import { fold, keyFromSeed, normal } from '../random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount } from '../tensor/shape.ts';
import { trace } from '../tensor/trace.ts';
import { leaves, type TreeOf } from '../tensor/tree.ts';
import {
  identity,
  type Matrix,
  multiply,
  scaled,
  symmetricEigen,
  symmetricPower,
  transposed,
} from './matrix.ts';

/** An autoencoder, and how its latents vary. */
export interface MeasuredAutoencoder {
  readonly config: AutoencoderConfig;
  /** Host tensors in the form of `autoencoderSpec(config)`. */
  readonly parameters: TreeOf<AutoencoderSpec, HostTensor>;
}

/** How far a channel is moved to see what it does to pixels, in standard deviations. */
const nudge = 0.5;

/**
 * How much pixels change with normalised latents: the mean over positions of J^T J, J the decoder's Jacobian at one
 * position, [C, C]. Found by moving a channel by differences at all positions at once, up or down at random, so that what
 * positions do together cancels out.
 *
 * @param latents videos of latents that are not normalised, each [T', H', W', C], of one shape.
 */
export async function pixelInfluence(
  executor: Executor,
  { config, parameters }: MeasuredAutoencoder,
  latents: readonly HostTensor<'f32'>[],
): Promise<Matrix> {
  const channels = config.latentChannels;
  const shape = [channels + 1, ...at(latents, 0).shape];
  const { graph } = trace(
    'decode moved latents',
    (p, z) => [decode(p as Parameters<AutoencoderSpec>, config, z)],
    autoencoderSpec(config),
    { shape, dtype: 'f32' },
  );
  using executable = await executor.compile(graph);
  const weights = leaves(uploadTree(executor, parameters)) as DeviceBuffer[];
  let sum: Matrix = identity(channels).map((row) => row.map(() => 0));
  for (const [clip, { data }] of latents.entries()) {
    const positions = data.length / channels;
    const moved = movedLatents(config, data, normal(fold(keyFromSeed(0), clip), positions));
    using input = executor.upload(fromFloat32('f32', shape, moved));
    const [output] = await executor.run(executable, [...weights, input]);
    if (output === undefined) throw new Error('the decoder gave nothing');
    using video = output;
    const products = responseProducts(toFloat32(await executor.download(video)), channels);
    sum = sum.map((row, a) => row.map((value, b) => value + (products[a]?.[b] ?? 0) / positions));
  }
  disposeAll(weights);
  return scaled(sum, 1 / (latents.length * nudge ** 2));
}

/** The latents as they are, then with each channel moved. */
function movedLatents(
  { latentStd }: AutoencoderConfig,
  data: Float32Array,
  draws: Float32Array,
): Float32Array {
  const channels = latentStd.length;
  const moved = new Float32Array((channels + 1) * data.length);
  for (let copy = 0; copy <= channels; copy++) moved.set(data, copy * data.length);
  for (const [channel, deviation] of latentStd.entries()) {
    for (const [position, draw] of draws.entries()) {
      const index = (channel + 1) * data.length + position * channels + channel;
      moved[index] = (moved[index] ?? 0) + Math.sign(draw) * nudge * deviation;
    }
  }
  return moved;
}

/** Inner products of what each copy after the first differs from it. */
function responseProducts(videos: Float32Array, copies: number): Matrix {
  const size = videos.length / (copies + 1);
  const responses = Array.from({ length: copies }, (_, copy) =>
    videos.slice((copy + 1) * size, (copy + 2) * size).map((value, i) => value - (videos[i] ?? 0)),
  );
  return responses.map((a) =>
    responses.map((b) => a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0)),
  );
}

/** How normalised latents vary together, [C, C]: of latents that are not normalised, each [.., C]. */
export function latentCovariance(
  { latentMean, latentStd }: AutoencoderConfig,
  latents: readonly HostTensor<'f32'>[],
): Matrix {
  const channels = latentMean.length;
  const sum = identity(channels).map((row) => row.map(() => 0));
  let positions = 0;
  for (const { data } of latents) {
    for (let i = 0; i < data.length; i += channels) {
      const at = latentMean.map((mean, c) => ((data[i + c] ?? 0) - mean) / (latentStd[c] ?? 1));
      for (const [a, row] of sum.entries()) {
        for (let b = 0; b < channels; b++) row[b] = (row[b] ?? 0) + (at[a] ?? 0) * (at[b] ?? 0);
      }
      positions++;
    }
  }
  return scaled(sum, 1 / positions);
}

/**
 * The same autoencoder with other coordinates of its latents: the distance between two latents is about that of their
 * pixels, to a power. Then some directions vary much and the others little, as frequencies of pictures do, and denoising
 * goes from what is coarse to what is fine; where all directions vary alike, as normalised channels do, everything has to
 * be resolved at the same timestep, and most of what is resolved is hardly seen.
 *
 * The map and its inverse go into the last layer of the encoder and the first of the decoder, both linear, so pixels
 * change by rounding alone. The variances of the posterior, which only training uses, stay those of the old channels.
 *
 * @param influence from {@link pixelInfluence}.
 * @param covariance of normalised latents, [C, C].
 * @param power 0 turns to principal directions of the normalised latents, 1 to the metric of pixels.
 */
export function inPixelMetric(
  { config, parameters }: MeasuredAutoencoder,
  influence: Matrix,
  covariance: Matrix,
  power = 1,
): MeasuredAutoencoder {
  const { latentChannels, latentMean, latentStd } = config;
  const root = symmetricPower(influence, power / 2);
  const { values, vectors } = symmetricEigen(multiply(multiply(root, covariance), root));
  const scale = Math.sqrt(values.reduce((sum, value) => sum + value, 0) / latentChannels);
  const diagonal = (numbers: readonly number[]) =>
    identity(latentChannels).map((row, i) => row.map((one) => one * (numbers[i] ?? 0)));
  const toNew = scaled(
    multiply(multiply(transposed(vectors), root), diagonal(latentStd.map((deviation) => 1 / deviation))),
    1 / scale,
  );
  const toOld = scaled(
    multiply(multiply(diagonal(latentStd), symmetricPower(influence, -power / 2)), vectors),
    scale,
  );
  const { encoder, decoder } = parameters;
  return {
    config: { ...config, latentMean: latentMean.map(() => 0), latentStd: latentStd.map(() => 1) },
    parameters: {
      encoder: { ...encoder, moments: mappedMoments(encoder.moments, toNew, latentMean) },
      decoder: { ...decoder, latent: mappedLatent(decoder.latent, toOld, latentMean) },
    },
  };
}

type Linear = TreeOf<AutoencoderSpec, HostTensor>['decoder']['latent'];

/** A (W h + b - mean) for the rows of means; those of variances stay. */
function mappedMoments({ weight, bias }: Linear, toNew: Matrix, mean: readonly number[]): Linear {
  const channels = mean.length;
  const [rows, offsets] = [rowsOf(weight), [...toFloat32(bias)]];
  const means = multiply(toNew, rows.slice(0, channels));
  const centred = offsets.slice(0, channels).map((offset, i) => [offset - (mean[i] ?? 0)]);
  return {
    weight: matrixOf([...means, ...rows.slice(channels)]),
    bias: vectorOf([...multiply(toNew, centred).flat(), ...offsets.slice(channels)]),
  };
}

/** W (A^-1 z + mean) + b. */
function mappedLatent({ weight, bias }: Linear, toOld: Matrix, mean: readonly number[]): Linear {
  const rows = rowsOf(weight);
  const moved = multiply(
    rows,
    mean.map((value) => [value]),
  ).flat();
  return {
    weight: matrixOf(multiply(rows, toOld)),
    bias: vectorOf([...toFloat32(bias)].map((offset, i) => offset + (moved[i] ?? 0))),
  };
}

function rowsOf(tensor: HostTensor): Matrix {
  const columns = at(tensor.shape, 1);
  const values = toFloat32(tensor);
  return Array.from({ length: elementCount(tensor.shape) / columns }, (_, row) => [
    ...values.slice(row * columns, (row + 1) * columns),
  ]);
}

const matrixOf = (rows: Matrix): HostTensor =>
  fromFloat32('f32', [rows.length, at(rows, 0).length], Float32Array.from(rows.flat()));
const vectorOf = (values: readonly number[]): HostTensor =>
  fromFloat32('f32', [values.length], Float32Array.from(values));
