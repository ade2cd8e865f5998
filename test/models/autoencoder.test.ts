import { afterAll, describe, expect, it } from 'vitest';
import { BufferScope, type Executor } from '../../src/executors/executor.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import {
  autoencoderSpec,
  decode,
  decodeChunk,
  encode,
  encodeChunk,
  receptiveField,
} from '../../src/models/autoencoder/autoencoder.ts';
import {
  type AutoencoderConfig,
  autoencoderPresets,
  checkAutoencoderConfig,
  latentSpec,
} from '../../src/models/autoencoder/config.ts';
import { autoencoderLoss } from '../../src/models/autoencoder/loss.ts';
import { framesOf, latentShapeOf } from '../../src/models/latent-spec.ts';
import { initialize, type Parameters, parameterCount } from '../../src/nn/parameters.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, zeros } from '../../src/tensor/host-tensor.ts';
import { elementCount, type Shape, type TensorType } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';
import { leaves, withLeaves } from '../../src/tensor/tree.ts';
import { adamSchedule, adamW } from '../../src/training/optimizer.ts';
import { difference, evaluate } from '../executors/comparison.ts';

const tiny: AutoencoderConfig = {
  latentChannels: 2,
  channels: [4, 5, 6],
  encoderBlocks: [1, 1, 1],
  decoderBlocks: [1, 1, 1],
  latentMean: [0, 0],
  latentStd: [1, 1],
};
const spec = autoencoderSpec(tiny);
type P = Parameters<typeof spec>;

function f32(...shape: number[]): TensorType {
  return { shape, dtype: 'f32' };
}

function draw(name: string, shape: Shape, deviation = 1): HostTensor {
  const values = normal(fold(keyFromSeed(11), name), elementCount(shape));
  return fromFloat32(
    'f32',
    shape,
    values.map((value) => value * deviation),
  );
}

/** Every parameter at random, those that start at zero too, at sizes that keep the variance. */
function randomWeights(specs: object): HostTensor[] {
  return (leaves(specs) as TensorType[]).map(({ shape }, index) =>
    draw(`weight ${index}`, shape, (elementCount(shape) / shape[0]!) ** -0.5),
  );
}

const weights = randomWeights(spec);
const reference = new ReferenceExecutor();
const onnx = openOnnxExecutor();
afterAll(() => onnx[Symbol.asyncDispose]());

/** Values of the results of a function of weights and inputs. */
async function run(
  executor: Executor,
  build: (p: P, ...inputs: Tensor[]) => readonly Tensor[],
  ...inputs: HostTensor[]
): Promise<HostTensor[]> {
  const types = inputs.map(({ shape, dtype }) => ({ shape, dtype }));
  const { graph } = trace(
    'test',
    (p, list) => [...build(p as P, ...(list as readonly Tensor[]))],
    spec,
    types,
  );
  return evaluate(executor, graph, [...weights, ...inputs]);
}

const means = (p: P, video: Tensor) => [encode(p, tiny, video).mean];
const frames = (p: P, z: Tensor) => [decode(p, tiny, z)];

/** Frames from `start` on of a tensor [1, T, ..]. */
function cut(tensor: HostTensor, start: number, end = tensor.shape[1]!): HostTensor {
  const [, T, ...rest] = tensor.shape as [number, number, ...number[]];
  const size = tensor.data.length / T;
  return fromFloat32(
    'f32',
    [1, end - start, ...rest],
    (tensor.data as Float32Array).slice(start * size, end * size),
  );
}

/** Losses of training on one small moving square. */
async function overfit(steps: number): Promise<number[]> {
  const [T, S] = [5, 16];
  const pixels = new Float32Array(T * S * S * 3).fill(-0.5);
  for (let t = 0; t < T; t++) {
    for (let y = 4; y < 10; y++)
      pixels.fill(0.8, ((t * S + y) * S + 2 + t) * 3, ((t * S + y) * S + 8 + t) * 3);
  }
  const video = fromFloat32('f32', [1, T, S, S, 3], pixels);
  const list = leaves(spec).map(({ shape, dtype }) => ({ shape, dtype }));
  const schedule = { rate: 3e-3, warmup: 5 };
  const step = trace(
    'step',
    (p, mean, square, x, noise, rate, epsilon, keep) => {
      const tree = withLeaves(spec, p) as P;
      const { loss } = autoencoderLoss(tree, tiny, x, noise);
      const { parameters, state } = adamW(
        p,
        gradients(loss, p) as typeof p,
        { mean, square },
        { rate, epsilon, keep },
      );
      return [...parameters, ...state.mean, ...state.square, loss];
    },
    list,
    list,
    list,
    f32(1, T, S, S, 3),
    f32(1, 2, 2, 2, 2),
    f32(),
    f32(),
    f32(),
  );
  using executable = await onnx.compile(step.graph);
  using scope = new BufferScope();
  const upload = (tensor: HostTensor) => scope.own(onnx.upload(tensor));
  const empty = list.map(({ shape }) => zeros('f32', shape));
  let state = [...leaves(initialize(spec, keyFromSeed(1))), ...empty, ...empty].map(upload);
  const losses: number[] = [];
  for (let i = 1; i <= steps; i++) {
    const { rate, epsilon, keep } = adamSchedule(schedule, i);
    const scalars = [rate, epsilon, keep].map((value) => fromFloat32('f32', [], Float32Array.of(value)));
    const inputs = [video, draw(`noise ${i}`, [1, 2, 2, 2, 2]), ...scalars].map(upload);
    const out = scope.own([...(await onnx.run(executable, [...state, ...inputs]))]);
    state = out.slice(0, -1);
    losses.push((await onnx.download(out.at(-1)!)).data[0]!);
  }
  return losses;
}

describe('configuration', () => {
  it('is read back from what JSON made of it', () => {
    for (const config of Object.values(autoencoderPresets)) {
      expect(checkAutoencoderConfig(JSON.parse(JSON.stringify(config)))).toEqual(config);
    }
  });

  it.each([
    ['an object', 3, /configuration 3: must be an object/],
    ['every entry', { ...tiny, channels: undefined }, /channels is undefined; give a list of 3 numbers/],
    ['as many as levels', { ...tiny, channels: [4, 5] }, /channels is \[4,5\]; give a list of 3/],
    ['whole numbers', { ...tiny, encoderBlocks: [1, 0.5, 1] }, /encoderBlocks has 0.5; use a whole number/],
    ['positive deviations', { ...tiny, latentStd: [1, 0] }, /latentStd has 0; use a finite number above 0/],
    [
      'a value for each channel',
      { ...tiny, latentMean: [0] },
      /latentMean is \[0\]; give a list of 2 numbers/,
    ],
  ])('needs %s', (_, value, message) => {
    expect(() => checkAutoencoderConfig(value)).toThrow(message);
  });

  it('keeps micro within 3.5 MB of float16', () => {
    expect(2 * parameterCount(autoencoderSpec(autoencoderPresets.micro))).toBeLessThan(3.5e6);
  });

  it('says how many latents a video has', () => {
    const latents = latentSpec(autoencoderPresets.micro);
    expect(latentShapeOf(latents, 25, { height: 64, width: 96 })).toEqual([7, 8, 12, 16]);
    expect([1, 2, 5, 6].map((count) => latentShapeOf(latents, count, { height: 8, width: 8 })[0])).toEqual([
      1, 2, 2, 3,
    ]);
    expect([1, 2, 7].map((count) => framesOf(latents, count))).toEqual([1, 5, 25]);
  });
});

describe('shapes', () => {
  it('are divided by 4, 8 and 8, the first frame apart', () => {
    const { result } = trace(
      'shapes',
      (p, video, z) => ({ ...encode(p, tiny, video), video: decode(p, tiny, z) }),
      spec,
      f32(2, 9, 16, 24, 3),
      f32(2, 3, 2, 3, 2),
    );
    expect(result.mean.shape).toEqual([2, 3, 2, 3, 2]);
    expect(result.logVariance.shape).toEqual([2, 3, 2, 3, 2]);
    expect(result.video.shape).toEqual([2, 9, 16, 24, 3]);
  });

  it.each([
    [f32(1, 4, 16, 16, 3), /4 frames of 16x16: give 1 \+ 4k frames/],
    [f32(1, 5, 12, 16, 3), /16x12: .* sides of multiples of 8/],
    [f32(1, 5, 16, 16, 4), /autoencoder video must be/],
  ])('must fit', (type, message) => {
    expect(() => trace('bad', (p, video) => encode(p, tiny, video), spec, type)).toThrow(message);
  });
});

describe('conformance of the autoencoder on onnx cpu', () => {
  const video = draw('video', [2, 5, 16, 8, 3], 0.5);
  const noise = draw('noise', [2, 2, 2, 1, 2]);

  it('encodes', async () => {
    const build = (p: P, x: Tensor) => Object.values(encode(p, tiny, x)) as Tensor[];
    const [expected, found] = [await run(reference, build, video), await run(onnx, build, video)];
    expected.forEach((tensor, i) => {
      expect(difference(found[i]!, tensor, 2e-5), `encode ${i}`).toBeUndefined();
    });
  });

  it('decodes', async () => {
    const [expected, found] = [await run(reference, frames, noise), await run(onnx, frames, noise)];
    expect(difference(found[0]!, expected[0]!, 2e-5), 'decode').toBeUndefined();
  });

  it('has the loss and its gradient in every parameter', async () => {
    const build = (p: P, x: Tensor, n: Tensor) => {
      const { loss, pixel, gradient, kl, squaredError } = autoencoderLoss(p, tiny, x, n, { kl: 0.1 });
      return [loss, pixel, gradient, kl, squaredError, ...gradients(loss, leaves(p))];
    };
    const expected = await run(reference, build, video, noise);
    const found = await run(onnx, build, video, noise);
    expected.forEach((tensor, i) => {
      expect(difference(found[i]!, tensor, 1e-4), `loss ${i}`).toBeUndefined();
    });
    for (const tensor of expected) expect(Math.max(...tensor.data.map(Math.abs))).toBeGreaterThan(0);
  });
});

describe('the loss', () => {
  const video = draw('short video', [1, 5, 8, 8, 3], 0.5);
  const noise = draw('short noise', [1, 2, 1, 1, 2]);
  const smooth = (x: number) => Math.sqrt(x * x + 1e-6);
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

  it('is made of the terms that its parts say', async () => {
    const [loss, shown, pixel, gradient, kl, squared, mu, logVariance] = (
      await run(
        reference,
        (p, x, n) => {
          const found = autoencoderLoss(p, tiny, x, n, { gradient: 0.25, kl: 0.5 });
          const { loss: total, reconstruction, pixel: pixels, squaredError } = found;
          const posterior = encode(p, tiny, x);
          const terms = [total, reconstruction, pixels, found.gradient, found.kl, squaredError];
          return [...terms, posterior.mean, posterior.logVariance];
        },
        video,
        noise,
      )
    ).map(({ data }) => [...data]);
    const error = shown!.map((value, i) => value - video.data[i]!);
    expect(pixel![0]).toBeCloseTo(mean(error.map(smooth)), 5);
    expect(squared![0]).toBeCloseTo(mean(error.map((x) => x * x)), 5);
    const neighbours = [8 * 8 * 3, 8 * 3, 3].map((step, axis) => {
      const last = [4, 7, 7][axis]!;
      const pairs = error.flatMap((value, i) =>
        Math.floor(i / step) % (last + 1) < last ? [smooth(error[i + step]! - value)] : [],
      );
      return mean(pairs);
    });
    expect(gradient![0]).toBeCloseTo(neighbours[0]! + neighbours[1]! + neighbours[2]!, 4);
    const divergences = mu!.map((m, i) => (m * m + Math.exp(logVariance![i]!) - 1 - logVariance![i]!) / 2);
    expect(kl![0]).toBeCloseTo(mean(divergences), 5);
    expect(loss![0]).toBeCloseTo(pixel![0]! + 0.25 * gradient![0]! + 0.5 * kl![0]!, 5);
  });

  it('falls on a few frames', { timeout: 60_000 }, async () => {
    const losses = await overfit(60);
    expect(losses.at(-1)!).toBeLessThan(0.35 * losses[0]!);
  });
});

describe.each([
  ['reference', reference],
  ['onnx cpu', onnx],
])('in time, on %s', (_, executor) => {
  const video = draw('long video', [1, 13, 16, 16, 3], 0.5);
  const latents = draw('long latents', [1, 4, 2, 2, 2]);

  it('encodes a stream exactly as the whole', async () => {
    const [whole] = await run(executor, means, video);
    const streamed = await run(
      executor,
      (p, x) => {
        const first = encodeChunk(p, tiny, x.slice(1, 0, 1));
        const second = encodeChunk(p, tiny, x.slice(1, 1, 5), first.cache);
        const third = encodeChunk(p, tiny, x.slice(1, 5, 13), second.cache);
        return [first, second, third].map(({ posterior }) => posterior.mean);
      },
      video,
    );
    expect(streamed.flatMap(({ data }) => [...data])).toEqual([...whole!.data]);
  });

  it('decodes a stream exactly as the whole', async () => {
    const [whole] = await run(executor, frames, latents);
    const streamed = await run(
      executor,
      (p, z) => {
        const first = decodeChunk(p, tiny, z.slice(1, 0, 1));
        const second = decodeChunk(p, tiny, z.slice(1, 1, 2), first.cache);
        const third = decodeChunk(p, tiny, z.slice(1, 2, 4), second.cache);
        return [first, second, third].map((chunk) => chunk.video);
      },
      latents,
    );
    expect(streamed.flatMap(({ data }) => [...data])).toEqual([...whole!.data]);
  });

  it('sees nothing ahead', async () => {
    const [before] = await run(executor, means, video);
    for (const [frame, group] of [
      [1, 1],
      [4, 1],
      [5, 2],
      [12, 3],
    ] as const) {
      const changed = Float32Array.from(video.data);
      const size = changed.length / 13;
      changed.fill(0.9, frame * size, (frame + 1) * size);
      const [after] = await run(executor, means, fromFloat32('f32', video.shape, changed));
      expect(cut(after!, 0, group).data).toEqual(cut(before!, 0, group).data);
      expect(cut(after!, group, group + 1).data).not.toEqual(cut(before!, group, group + 1).data);
    }
    const [shown] = await run(executor, frames, latents);
    const [again] = await run(executor, frames, cut(latents, 0, 3));
    expect(again!.data).toEqual(cut(shown!, 0, 9).data);
  });

  it('takes an image for the first frame of a clip', async () => {
    const [image] = await run(executor, means, cut(video, 0, 1));
    const [clip] = await run(executor, means, video);
    expect(image!.data).toEqual(cut(clip!, 0, 1).data);
    const [still] = await run(executor, frames, cut(latents, 0, 1));
    const [moving] = await run(executor, frames, latents);
    expect(still!.data).toEqual(cut(moving!, 0, 1).data);
  });
});

describe('the receptive field', () => {
  const wide: AutoencoderConfig = { ...tiny, encoderBlocks: [1, 1, 0], decoderBlocks: [1, 1, 0] };
  const wideSpec = autoencoderSpec(wide);
  const wideWeights = randomWeights(wideSpec);

  /** Indices along `axis` at which two tensors differ. */
  function changes(a: HostTensor, b: HostTensor, axis: number): number[] {
    const inner = elementCount(a.shape.slice(axis + 1));
    const found = new Set<number>();
    a.data.forEach((value, i) => {
      if (value !== b.data[i]) found.add(Math.floor(i / inner) % a.shape[axis]!);
    });
    return [...found].sort((x, y) => x - y);
  }

  it('of the decoder reaches as far in space as it says, and no further', async () => {
    const build = (p: Parameters<typeof wideSpec>, z: Tensor) => decode(p, wide, z);
    const z = draw('row', [1, 1, 1, 9, 2]);
    const { graph } = trace('row', build, wideSpec, f32(...z.shape));
    const changed = Float32Array.from(z.data);
    changed.fill(3, 4 * 2, 5 * 2);
    const [a] = await evaluate(reference, graph, [...wideWeights, z]);
    const [b] = await evaluate(reference, graph, [...wideWeights, fromFloat32('f32', z.shape, changed)]);
    const columns = changes(a!, b!, 3);
    const { space } = receptiveField(wide).decoder;
    expect(space).toBe(8);
    expect([columns[0], columns.at(-1)]).toEqual([32 - space, 39 + space]);
  });

  it('of the encoder reaches as far in space and time as it says, and no further', async () => {
    const build = (p: Parameters<typeof wideSpec>, x: Tensor) => encode(p, wide, x).mean;
    const { space, time } = receptiveField(wide).encoder;
    expect([space, time]).toEqual([6, 6]);
    const video = draw('strip', [1, 13, 8, 40, 3], 0.5);
    const { graph } = trace('strip', build, wideSpec, f32(...video.shape));
    const [before] = await evaluate(reference, graph, [...wideWeights, video]);
    const touched = async (frame: number, column: number, axis: number) => {
      const changed = Float32Array.from(video.data);
      for (let row = 0; row < 8; row++) {
        const pixel = ((frame * 8 + row) * 40 + column) * 3;
        changed.fill(0.9, pixel, pixel + 3);
      }
      const [after] = await evaluate(reference, graph, [
        ...wideWeights,
        fromFloat32('f32', video.shape, changed),
      ]);
      return changes(before!, after!, axis);
    };
    // Latent column 2 stands for pixels 16 to 23, latent frame 3 for frames 9 to 12.
    expect(await touched(0, 16 - space, 3)).toEqual([0, 1, 2]);
    expect(await touched(0, 16 - space - 1, 3)).toEqual([0, 1]);
    expect(await touched(9 - time, 20, 1)).toEqual([1, 2, 3]);
    expect(await touched(9 - time - 1, 20, 1)).toEqual([1, 2]);
  });
});
