/**
 * Memory while a long latent is decoded: resident memory every tenth of the way, frames being dropped as they come.
 * Weights are random; what they are changes neither time nor memory.
 *
 *     npx node bench/decode-memory.ts [FRAMES=600] [SIDE=64] [TILE=0]
 */
import { openExecutor } from '../src/app.ts';
import { autoencoderSpec } from '../src/models/autoencoder/autoencoder.ts';
import { autoencoderPresets, latentSpec } from '../src/models/autoencoder/config.ts';
import { latentShapeOf } from '../src/models/latent-spec.ts';
import { initialize } from '../src/nn/parameters.ts';
import { LatentCodec } from '../src/pipeline/latent-codec.ts';
import { keyFromSeed, normal } from '../src/random/philox.ts';
import { fromFloat32 } from '../src/tensor/host-tensor.ts';
import { elementCount } from '../src/tensor/shape.ts';

const [frames = 600, side = 64, tile = 0] = process.argv.slice(2).map(Number);
const config = autoencoderPresets.micro;
const shape = latentShapeOf(latentSpec(config), frames, { height: side, width: side });
const latents = fromFloat32('f32', shape, normal(keyFromSeed(1), elementCount(shape)));

await using executor = await openExecutor('cpu');
const weights = initialize(autoencoderSpec(config), keyFromSeed(0));
await using codec = new LatentCodec(executor, config, weights, tile > 0 ? { tiles: { size: tile } } : {});

const started = performance.now();
let done = 0;
let reported = 0;
for await (const { frames: more } of codec.decode(latents, { rate: 12, frames })) {
  done += more;
  if (done < (reported / 10) * frames) continue;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(
    `${done} frames, ${seconds} s: ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB resident`,
  );
  reported = Math.floor((10 * done) / frames) + 1;
}
