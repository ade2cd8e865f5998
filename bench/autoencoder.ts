/**
 * Time of the autoencoder on whole clips: encoding, decoding, the loss, and the loss with its gradients. CPU seconds are
 * those of all threads; on a busy machine they are the steadier figure.
 *
 *     npx node bench/autoencoder.ts [FRAMES=25] [SIDE=64] [PRESET=micro] [PRECISION]
 */
import { openExecutor } from '../src/app.ts';
import { disposeAll, type Precision, uploadTree } from '../src/executors/executor.ts';
import { autoencoderSpec, decode, encode } from '../src/models/autoencoder/autoencoder.ts';
import { type AutoencoderPreset, autoencoderPresets, latentSpec } from '../src/models/autoencoder/config.ts';
import { autoencoderLoss } from '../src/models/autoencoder/loss.ts';
import { latentShapeOf } from '../src/models/latent-spec.ts';
import { initialize } from '../src/nn/parameters.ts';
import { fold, keyFromSeed, normal } from '../src/random/philox.ts';
import { gradients } from '../src/tensor/gradients.ts';
import { fromFloat32 } from '../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../src/tensor/shape.ts';
import type { Graph } from '../src/tensor/tensor.ts';
import { trace } from '../src/tensor/trace.ts';
import { leaves } from '../src/tensor/tree.ts';

const [frames = '25', side = '64', preset = 'micro', precision] = process.argv.slice(2);
const config = autoencoderPresets[preset as AutoencoderPreset];
const spec = autoencoderSpec(config);
const size = { height: Number(side), width: Number(side) };
const video: TensorType = { shape: [1, Number(frames), size.height, size.width, 3], dtype: 'f32' };
const latents: TensorType = {
  shape: [1, ...latentShapeOf(latentSpec(config), Number(frames), size)],
  dtype: 'f32',
};

await using executor = await openExecutor(
  'cpu',
  precision === undefined ? {} : { precision: precision as Precision },
);
const weights = leaves(uploadTree(executor, initialize(spec, keyFromSeed(1))));
const draw = ({ shape }: TensorType, name: string) =>
  executor.upload(fromFloat32('f32', shape, normal(fold(keyFromSeed(2), name), elementCount(shape))));
const pixels = draw(video, 'video');
const noise = draw(latents, 'noise');

async function measure(name: string, graph: Graph, inputs: readonly (typeof pixels)[]): Promise<void> {
  using executable = await executor.compile(graph);
  const run = async () => disposeAll(await executor.run(executable, [...weights, ...inputs]));
  await run();
  const [rounds, cpu, wall] = [5, process.cpuUsage(), performance.now()];
  for (let i = 0; i < rounds; i++) await run();
  const { user, system } = process.cpuUsage(cpu);
  const perRound = [(user + system) / 1000, performance.now() - wall].map((ms) => (ms / rounds).toFixed(0));
  console.log(`${name}: ${perRound[0]} CPU ms, ${perRound[1]} ms on the clock`);
}

const { graph: encoding } = trace('encode', (p, x) => [encode(p, config, x).mean], spec, video);
const { graph: decoding } = trace('decode', (p, z) => [decode(p, config, z)], spec, latents);
const { graph: forward } = trace(
  'loss',
  (p, x, n) => [autoencoderLoss(p, config, x, n).loss],
  spec,
  video,
  latents,
);
const { graph: backward } = trace(
  'gradients',
  (p, x, n) => gradients(autoencoderLoss(p, config, x, n).loss, leaves(p)),
  spec,
  video,
  latents,
);
await measure('encode', encoding, [pixels]);
await measure('decode', decoding, [noise]);
await measure('loss', forward, [pixels, noise]);
await measure('loss and gradients', backward, [pixels, noise]);
