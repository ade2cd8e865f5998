import { UserError } from '../errors.ts';
import { type DeviceBuffer, disposeAll, type Executor, uploadTree } from '../executors/executor.ts';
import {
  type AutoencoderSpec,
  autoencoderSpec,
  decodeChunk,
  encodeChunk,
  receptiveField,
} from '../models/autoencoder/autoencoder.ts';
import { type AutoencoderConfig, latentSpec, latentStride } from '../models/autoencoder/config.ts';
import { framesOf, type LatentSpec, latentShapeOf } from '../models/latent-spec.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../tensor/host-tensor.ts';
import { at, expectShape, type TensorType } from '../tensor/shape.ts';
import { trace } from '../tensor/trace.ts';
import type { TreeOf } from '../tensor/tree.ts';
import { type Size, type Video, videoFrom } from '../video/frames.ts';
import { type CausalNetwork, CausalProgram } from './causal-program.ts';
import { costOf, type GraphCost } from './graph-cost.ts';
import { type Tile, TilePlan } from './tiles.ts';

/** How large frames are cut into tiles. A run's memory is that of a tile; where tiles overlap they are computed twice. */
export interface TileOptions {
  /** Longest side of a tile in pixels, a multiple of 8; shorter sides of a frame are not cut. */
  readonly size: number;
  /**
   * Least overlap of neighbours in pixels, a multiple of 8 below `size`. From twice the network's reach on, which is
   * the default, tiles change nothing but rounding. With less, neighbours are blended in a straight line, so that a
   * pixel is never further from the untiled result than the furthest of the tiles that it is blended from.
   */
  readonly overlap?: number;
}

/** What decoded frames are told besides their pixels. */
export interface DecodeOptions {
  /** Frames per second, above 0. */
  readonly rate: number;
  /** Frames to give, when the last latent frame was filled up; default: all that the latents stand for. */
  readonly frames?: number;
}

/** The two ways of a codec. */
export type Direction = 'encode' | 'decode';

/**
 * Videos to normalised latents and back on an executor. Both ways stream in time: a stretch is one latent frame, so that
 * memory does not grow with duration, and the result is that of the whole.
 *
 * Weights are uploaded once; each frame (or tile) size is compiled once, at its first use. Dispose to free both.
 */
export class LatentCodec implements AsyncDisposable {
  /** What the latents are like. */
  readonly spec: LatentSpec;
  readonly #executor: Executor;
  readonly #config: AutoencoderConfig;
  readonly #weights: TreeOf<AutoencoderSpec, DeviceBuffer>;
  readonly #tiles: TileOptions | undefined;
  readonly #programs = new Map<string, Promise<CausalProgram>>();

  /**
   * @param parameters weights of `autoencoderSpec(config)`, such as a model file holds.
   * @param tiles default: each frame whole.
   * @throws UserError when a size of the tiles is not a multiple of 8, or the overlap is not below the size.
   */
  constructor(
    executor: Executor,
    config: AutoencoderConfig,
    parameters: TreeOf<AutoencoderSpec, HostTensor>,
    { tiles }: { readonly tiles?: TileOptions } = {},
  ) {
    this.spec = latentSpec(config);
    this.#executor = executor;
    this.#config = config;
    if (tiles !== undefined) checkTiles(tiles, config);
    this.#tiles = tiles;
    this.#weights = uploadTree(executor, parameters);
  }

  /** Frames before a latent frame's own that its values can depend on. */
  get encoderMemory(): number {
    return receptiveField(this.#config).encoder.time;
  }

  /**
   * The normalised latents of a video, f32 [T', H/8, W/8, C] with T' = 1 + ceil((frames - 1) / 4). Frames that are missing
   * from the last group of four are filled with the last one; {@link DecodeOptions.frames} drops them again.
   * @throws UserError when there are no frames, or a side is not a multiple of 8.
   */
  async encode(video: Video): Promise<HostTensor<'f32'>> {
    checkVideo(video, this.spec);
    const shape = latentShapeOf(this.spec, video.frames, video);
    const [count, height, width, channels] = shape;
    const latents = new Float32Array(count * height * width * channels);
    const stretches = this.#stream('encode', { count, height, width }, (index, tile) =>
      cutPixels(video, this.spec, index, tile),
    );
    let offset = 0;
    for await (const stretch of stretches) {
      latents.set(normalize(stretch, this.spec), offset);
      offset += stretch.length;
    }
    return fromFloat32('f32', shape, latents);
  }

  /**
   * The frames of normalised latents [T', H', W', C] in order: the first alone, then four at a time. Nothing is kept of
   * frames that were given, and stopping early frees everything.
   * @throws GraphError when the latents have another number of channels.
   */
  async *decode(latents: HostTensor, { rate, frames }: DecodeOptions): AsyncGenerator<Video> {
    const { T, H, W } = expectShape(latents, 'T H W C', { C: this.spec.channels }, 'latents');
    const [, rows, columns] = this.spec.stride;
    const size = { height: H * rows, width: W * columns };
    const frameBytes = size.height * size.width * 3;
    const wanted = Math.min(frames ?? Number.POSITIVE_INFINITY, framesOf(this.spec, T));
    const values = toFloat32(latents);
    const stretches = this.#stream(
      'decode',
      { count: latentShapeOf(this.spec, wanted, size)[0], height: H, width: W },
      (index, tile) => cutLatents(values, this.spec, { height: H, width: W }, index, tile),
    );
    let given = 0;
    for await (const stretch of stretches) {
      const data = toBytes(stretch).subarray(0, (wanted - given) * frameBytes);
      const video = videoFrom(data, { ...size, rate });
      const timestamps = video.timestamps.map((_, i) => (given + i) / rate);
      given += video.frames;
      yield { ...video, timestamps };
    }
  }

  /**
   * What the first frame of a video, or its latent frame, costs to encode or decode: operations of the whole frame, memory
   * of a tile. Nothing is compiled.
   */
  costOf(direction: Direction, { width, height }: Size): GraphCost {
    const [, rows, columns] = this.spec.stride;
    const most = this.#tiles?.size ?? Number.POSITIVE_INFINITY;
    const tile = { width: Math.min(width, most), height: Math.min(height, most) };
    const type = this.#stretchType(direction, 1, tile.height / rows, tile.width / columns);
    const network = networks[direction](this.#config);
    const { graph } = trace(direction, (p, x) => [network(p, x).result], autoencoderSpec(this.#config), type);
    const { operations, peakBytes } = costOf(graph);
    return { operations: (operations * width * height) / (tile.width * tile.height), peakBytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const programs = await Promise.allSettled(this.#programs.values());
    for (const program of programs) if (program.status === 'fulfilled') program.value[Symbol.dispose]();
    this.#programs.clear();
    disposeAll(this.#weights);
  }

  /** Runs `count` stretches through a network tile by tile, and gives each one's result blended to whole frames. */
  async *#stream(
    direction: Direction,
    { count, height, width }: { count: number; height: number; width: number },
    cut: (index: number, tile: Tile) => HostTensor,
  ): AsyncGenerator<Float32Array> {
    const plan = this.#plan(direction, height, width);
    const caches: (readonly DeviceBuffer[] | undefined)[] = plan.tiles.map(() => undefined);
    try {
      for (let index = 0; index < count; index++) {
        const results: HostTensor[] = [];
        for (const [i, tile] of plan.tiles.entries()) {
          const program = await this.#program(direction, tile);
          const cache = caches[i];
          caches[i] = undefined; // the run disposes it, even one that fails
          const step = await program.run(cut(index, tile), cache);
          caches[i] = step.cache;
          results.push(step.result);
        }
        yield plan.blend(results);
      }
    } finally {
      for (const cache of caches) if (cache !== undefined) disposeAll(cache);
    }
  }

  #plan(direction: Direction, height: number, width: number): TilePlan {
    const [, stride] = this.spec.stride;
    const { size = Number.POSITIVE_INFINITY, overlap } = this.#tiles ?? {};
    const reach = reachOf(this.#config, direction);
    const rule = {
      size: size / stride,
      overlap: overlap === undefined ? 2 * reach : overlap / stride,
      reach,
    };
    return new TilePlan(height, width, rule, direction === 'decode' ? stride : 1);
  }

  #program(direction: Direction, { rows, columns }: Tile): Promise<CausalProgram> {
    const key = `${direction} ${rows}x${columns}`;
    const known = this.#programs.get(key) ?? this.#compile(direction, rows, columns);
    this.#programs.set(key, known);
    return known;
  }

  /** What a network takes: `frames` of pixels, or one latent frame, of `rows` and `columns` latent positions. */
  #stretchType(direction: Direction, frames: number, rows: number, columns: number): TensorType {
    const { channels, stride } = this.spec;
    return direction === 'encode'
      ? { shape: [1, frames, rows * stride[1], columns * stride[2], 3], dtype: 'f32' }
      : { shape: [1, 1, rows, columns, channels], dtype: 'f32' };
  }

  #compile(direction: Direction, rows: number, columns: number): Promise<CausalProgram> {
    const type = (frames: number) => this.#stretchType(direction, frames, rows, columns);
    const types = { first: type(1), next: type(this.spec.stride[0]) };
    const network = networks[direction](this.#config);
    return CausalProgram.compile(
      this.#executor,
      network,
      this.#weights,
      autoencoderSpec(this.#config),
      types,
    );
  }
}

const networks: {
  readonly [D in Direction]: (config: AutoencoderConfig) => CausalNetwork<AutoencoderSpec>;
} = {
  encode: (config) => (p, x, previous) => {
    const { posterior, cache } = encodeChunk(p, config, x, previous);
    return { result: posterior.mean, cache };
  },
  decode: (config) => (p, x, previous) => {
    const { video, cache } = decodeChunk(p, config, x, previous);
    return { result: video, cache };
  },
};

function checkVideo({ frames, height, width }: Video, { stride: [, rows, columns] }: LatentSpec): void {
  if (frames === 0) throw new UserError('video to encode: has no frames; give at least one');
  if (height % rows !== 0 || width % columns !== 0) {
    throw new UserError(
      `video to encode: ${width}x${height} pixels; width and height must be multiples of ${rows}, resize or crop it`,
    );
  }
}

/** Latent positions to each side that a network sees. */
function reachOf(config: AutoencoderConfig, direction: Direction): number {
  const { encoder, decoder } = receptiveField(config);
  return Math.ceil((direction === 'encode' ? encoder : decoder).space / latentStride[1]);
}

function checkTiles({ size, overlap }: TileOptions, config: AutoencoderConfig): void {
  const [, stride] = latentStride;
  const shared = overlap ?? 2 * stride * Math.max(reachOf(config, 'encode'), reachOf(config, 'decode'));
  const fits = (pixels: number) => Number.isInteger(pixels / stride) && pixels >= 0;
  if (!(fits(size) && fits(shared) && shared < size)) {
    throw new UserError(
      `tiles of ${size} pixels with an overlap of ${shared}: use multiples of ${stride}, the overlap below the size`,
    );
  }
}

/** Pixels of a tile in stretch `index` as f32 [1, 1 or 4, rows, columns, 3] in -1 to 1; the last frame fills up. */
function cutPixels(video: Video, { stride }: LatentSpec, index: number, tile: Tile): HostTensor {
  const [time, rowStride, columnStride] = stride;
  const [frames, first] = index === 0 ? [1, 0] : [time, 1 + (index - 1) * time];
  const [rows, columns] = [tile.rows * rowStride, tile.columns * columnStride];
  const out = new Float32Array(frames * rows * columns * 3);
  let to = 0;
  for (let i = 0; i < frames; i++) {
    const frame = Math.min(first + i, video.frames - 1);
    for (let row = 0; row < rows; row++) {
      const y = frame * video.height + tile.row * rowStride + row;
      const from = (y * video.width + tile.column * columnStride) * 3;
      for (const byte of video.data.subarray(from, from + columns * 3)) out[to++] = byte / 127.5 - 1;
    }
  }
  return fromFloat32('f32', [1, frames, rows, columns, 3], out);
}

/** Latents of a tile in latent frame `index`, [1, 1, rows, columns, C], as the decoder takes them: not normalised. */
function cutLatents(
  values: Float32Array,
  spec: LatentSpec,
  { height, width }: { height: number; width: number },
  index: number,
  { row, column, rows, columns }: Tile,
): HostTensor {
  const { channels, mean, std } = spec;
  const out = new Float32Array(rows * columns * channels);
  let to = 0;
  for (let y = 0; y < rows; y++) {
    const from = ((index * height + row + y) * width + column) * channels;
    for (const value of values.subarray(from, from + columns * channels)) {
      const channel = to % channels;
      out[to++] = value * at(std, channel) + at(mean, channel);
    }
  }
  return fromFloat32('f32', [1, 1, rows, columns, channels], out);
}

/** (x - mean) / std for each channel. */
function normalize(values: Float32Array, { channels, mean, std }: LatentSpec): Float32Array {
  return values.map((value, i) => (value - at(mean, i % channels)) / at(std, i % channels));
}

/** -1 to 1 as bytes, rounded to nearest; values outside are clamped by the array. */
function toBytes(values: Float32Array): Uint8Array {
  return new Uint8Array(Uint8ClampedArray.from(values, (value) => (value + 1) * 127.5).buffer);
}
