import { afterAll, describe, expect, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { autoencoderSpec, decode, encode, receptiveField } from '../../src/models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../../src/models/autoencoder/config.ts';
import { initialize } from '../../src/nn/parameters.ts';
import { LatentCodec, type TileOptions } from '../../src/pipeline/latent-codec.ts';
import { TilePlan } from '../../src/pipeline/tiles.ts';
import { fold, keyFromSeed, normal, uniform } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor } from '../../src/tensor/host-tensor.ts';
import { elementCount, type Shape, type TensorType } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';
import { joinFrames, sliceFrames, type Video, videoFrom } from '../../src/video/frames.ts';
import { evaluate } from '../executors/comparison.ts';

const config: AutoencoderConfig = {
  latentChannels: 2,
  channels: [4, 5, 6],
  encoderBlocks: [1, 1, 0],
  decoderBlocks: [1, 1, 0],
  latentMean: [0.5, -0.25],
  latentStd: [2, 0.5],
};
const spec = autoencoderSpec(config);

function draw(name: string, shape: Shape, deviation = 1): HostTensor<'f32'> {
  const values = normal(fold(keyFromSeed(5), name), elementCount(shape));
  return fromFloat32(
    'f32',
    shape,
    values.map((value) => value * deviation),
  );
}

// Layers that start at zero would make every block the identity.
const weights = mapTree(initialize(spec, keyFromSeed(2)), (leaf, path) => {
  const { shape } = leaf as TensorType;
  return shape.length > 1 ? draw(path, shape, (elementCount(shape) / shape[0]!) ** -0.5) : leaf;
}) as ReturnType<typeof initialize<typeof spec>>;

function clip(frames: number, height: number, width: number): Video {
  const noise = uniform(fold(keyFromSeed(3), 'clip'), frames * height * width * 3);
  return videoFrom(
    Uint8Array.from(noise, (u) => 256 * u),
    { width, height, rate: 12 },
  );
}

const executor = openOnnxExecutor();
afterAll(() => executor[Symbol.asyncDispose]());

function codecWith(tiles?: TileOptions): LatentCodec {
  return new LatentCodec(executor, config, weights, tiles === undefined ? {} : { tiles });
}

async function collect(stream: AsyncIterable<Video>): Promise<Video[]> {
  const pieces: Video[] = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
}

/** Largest difference between two lists of numbers. */
function furthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
}

describe('a latent codec', () => {
  it('gives the normalised means of the whole video, bit for bit', async () => {
    const video = clip(9, 16, 24);
    await using codec = codecWith();
    const latents = await codec.encode(video);
    expect(latents.shape).toEqual([3, 2, 3, 2]);
    const pixels = fromFloat32(
      'f32',
      [1, 9, 16, 24, 3],
      Float32Array.from(video.data, (byte) => byte / 127.5 - 1),
    );
    const { graph } = trace('encode', (p, x) => [encode(p, config, x).mean], spec, {
      shape: pixels.shape,
      dtype: pixels.dtype,
    });
    const [means] = await evaluate(executor, graph, [...leaves(weights), pixels]);
    const expected = Float32Array.from(
      means!.data,
      (value, i) => (value - [0.5, -0.25][i % 2]!) / [2, 0.5][i % 2]!,
    );
    expect(latents.data).toEqual(expected);
  });

  it('decodes in order, one frame and then four at a time, to the frames of the whole', async () => {
    const latents = draw('latents', [3, 2, 3, 2]);
    await using codec = codecWith();
    const pieces = await collect(codec.decode(latents, { rate: 10 }));
    expect(pieces.map(({ frames }) => frames)).toEqual([1, 4, 4]);
    const video = joinFrames(pieces);
    expect([video.width, video.height, video.rate]).toEqual([24, 16, 10]);
    expect([...video.timestamps]).toEqual(Array.from({ length: 9 }, (_, i) => i / 10));
    const z = fromFloat32(
      'f32',
      [1, 3, 2, 3, 2],
      Float32Array.from(latents.data, (value, i) => value * [2, 0.5][i % 2]! + [0.5, -0.25][i % 2]!),
    );
    const { graph } = trace('decode', (p, x) => [decode(p, config, x)], spec, {
      shape: z.shape,
      dtype: z.dtype,
    });
    const [whole] = await evaluate(executor, graph, [...leaves(weights), z]);
    const bytes = Uint8ClampedArray.from(whole!.data, (value) => (value + 1) * 127.5);
    expect(video.data).toEqual(new Uint8Array(bytes.buffer));
    expect(new Set(video.data).size).toBeGreaterThan(20);
  });

  it('fills the last group of frames with the last one, and drops it again', async () => {
    const video = clip(7, 8, 8);
    const last = sliceFrames(video, 6);
    await using codec = codecWith();
    const latents = await codec.encode(video);
    expect(latents.data).toEqual((await codec.encode(joinFrames([video, last, last]))).data);
    const all = joinFrames(await collect(codec.decode(latents, { rate: 12 })));
    const some = joinFrames(await collect(codec.decode(latents, { rate: 12, frames: 7 })));
    expect([all.frames, some.frames]).toEqual([9, 7]);
    expect(some.data).toEqual(all.data.subarray(0, some.data.length));
    expect((await collect(codec.decode(latents, { rate: 12, frames: 1 }))).length).toBe(1);
  });

  it('can be stopped early and used again', async () => {
    await using codec = codecWith();
    const latents = draw('latents', [4, 1, 1, 2]);
    const first: Video[] = [];
    for await (const piece of codec.decode(latents, { rate: 1 })) {
      first.push(piece);
      if (first.length === 2) break;
    }
    const again = await collect(codec.decode(latents, { rate: 1 }));
    expect(again.length).toBe(4);
    expect(joinFrames(again.slice(0, 2)).data).toEqual(joinFrames(first).data);
  });

  it.each([
    [
      'sides',
      () => codecWith().encode(clip(1, 8, 12)),
      /12x8 pixels; width and height must be multiples of 8/,
    ],
    ['frames', () => codecWith().encode(sliceFrames(clip(1, 8, 8), 1)), /has no frames; give at least one/],
    ['tile sizes', async () => codecWith({ size: 20 }), /tiles of 20 pixels .* multiples of 8/],
    ['overlaps', async () => codecWith({ size: 16, overlap: 16 }), /overlap below the size/],
    ['defaults of overlaps', async () => codecWith({ size: 16 }), /overlap below the size/],
  ])('refuses wrong %s', async (_, act, message) => {
    await expect(act()).rejects.toThrow(message);
  });
});

describe('tiles', () => {
  const latents = draw('wide latents', [2, 9, 12, 2]);
  const { space } = receptiveField(config).decoder;

  it('change nothing but rounding when they overlap by twice the reach', async () => {
    expect(space).toBe(8);
    await using whole = codecWith();
    await using tiled = codecWith({ size: 32 });
    const video = clip(5, 72, 96);
    expect(furthest((await tiled.encode(video)).data, (await whole.encode(video)).data)).toBeLessThan(1e-5);
    const [a, b] = [
      joinFrames(await collect(whole.decode(latents, { rate: 1 }))),
      joinFrames(await collect(tiled.decode(latents, { rate: 1 }))),
    ];
    expect(furthest(a.data, b.data)).toBeLessThanOrEqual(1);
  });

  it('blend where they overlap less: no pixel is further off than the tiles themselves', async () => {
    const strip = draw('strip', [2, 4, 12, 2]);
    await using whole = codecWith();
    await using tiled = codecWith({ size: 32, overlap: 8 });
    const [a, b] = [
      joinFrames(await collect(whole.decode(strip, { rate: 1 }))),
      joinFrames(await collect(tiled.decode(strip, { rate: 1 }))),
    ];
    let worst = 0;
    for (const { column } of new TilePlan(4, 12, { size: 4, overlap: 1, reach: 1 }, 8).tiles) {
      const part = Array.from({ length: 2 * 4 }, (_, row) => [
        ...strip.data.subarray((row * 12 + column) * 2, (row * 12 + column + 4) * 2),
      ]).flat();
      const latents = fromFloat32('f32', [2, 4, 4, 2], Float32Array.from(part));
      const tile = joinFrames(await collect(whole.decode(latents, { rate: 1 })));
      tile.data.forEach((byte, i) => {
        const [x, y] = [Math.floor(i / 3) % 32, Math.floor(i / 96)];
        worst = Math.max(worst, Math.abs(byte - a.data[(y * 96 + column * 8 + x) * 3 + (i % 3)]!));
      });
    }
    const error = furthest(a.data, b.data);
    expect(error).toBeGreaterThan(1);
    expect(error).toBeLessThanOrEqual(worst + 1);
  });

  it('cover every position once in all, whatever the size', () => {
    for (const [height, width] of [
      [5, 5],
      [8, 13],
      [21, 9],
    ] as const) {
      for (const overlap of [0, 1, 2, 4, 5]) {
        const plan = new TilePlan(height, width, { size: 8, overlap, reach: 2 }, 3);
        const ones = plan.tiles.map(({ rows, columns }) => {
          const shape = [1, 1, rows * 3, columns * 3, 1];
          return fromFloat32('f32', shape, new Float32Array(elementCount(shape)).fill(1));
        });
        const sum = plan.blend(ones);
        expect(sum.length).toBe(height * width * 9);
        expect(furthest(sum, new Float32Array(sum.length).fill(1))).toBeLessThan(1e-6);
      }
    }
  });

  it('keep their least overlap, and go no further than the frame', () => {
    const { tiles } = new TilePlan(30, 8, { size: 8, overlap: 3, reach: 2 }, 1);
    const rows = tiles.map(({ row }) => row);
    expect([rows[0], rows.at(-1)]).toEqual([0, 22]);
    expect(rows.slice(1).every((row, i) => row - rows[i]! <= 5)).toBe(true);
    expect(tiles.every(({ column }) => column === 0)).toBe(true);
  });
});
