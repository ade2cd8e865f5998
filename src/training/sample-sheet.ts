import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.ts';
import { type DeviceBuffer, disposeAll, type Executable, type Executor } from '../executors/executor.ts';
import { type AutoencoderSpec, autoencoderSpec, decode, encode } from '../models/autoencoder/autoencoder.ts';
import type { AutoencoderConfig } from '../models/autoencoder/config.ts';
import type { Parameters } from '../nn/parameters.ts';
import { toFloat32, zeros } from '../tensor/host-tensor.ts';
import { at } from '../tensor/shape.ts';
import { trace } from '../tensor/trace.ts';
import { leaves } from '../tensor/tree.ts';
import { frameAt, type Video, videoFrom } from '../video/frames.ts';
import { encodePng } from '../video/png.ts';
import type { DeviceState } from './device-state.ts';
import { runPaths } from './loop.ts';
import type { AutoencoderRecipe } from './recipe.ts';
import { captionsFile } from './report.ts';
import { worldClip, writePixels } from './world-clips.ts';

const framesShown = 7;
const clipsShown = 4;
/** Worlds far from those of the first steps. */
const firstShown = 1_000_000;

/**
 * Makes a sheet of a few clips of the recipe's first variant: each original above its reconstruction by the running
 * average of the weights.
 */
export function reconstructionSheet(
  executor: Executor,
  config: AutoencoderConfig,
  { data }: AutoencoderRecipe,
  folder: string,
): (state: DeviceState, step: number) => Promise<void> {
  const variant = at(data.variants, 0);
  const shape = [1, variant.frames, variant.height, variant.width, 3];
  const originals = Array.from(
    { length: clipsShown },
    (_, i) => worldClip(data, firstShown + i, variant).video,
  );
  let executable: Executable | undefined;
  return async (state, step) => {
    executable ??= await executor.compile(traceReconstruction(config, shape));
    const rows: Video[] = [];
    for (const original of originals) {
      const pixels = zeros('f32', shape);
      writePixels(original, pixels.data, 0);
      using input = executor.upload(pixels);
      const parameters = leaves(state.buffers.average) as DeviceBuffer[];
      const outputs = await executor.run(executable, [...parameters, input]);
      const values = toFloat32(await executor.download(at(outputs, 0)));
      disposeAll([...outputs]);
      rows.push(original, fromPixels(values, original));
    }
    await writeSheet(folder, step, rows);
  };
}

/**
 * Writes rows of evenly spaced frames as `samples/step-00001000.png` of a run's folder.
 * @param captions what the rows are, the same for all sheets of a run; for the report.
 */
export async function writeSheet(
  folder: string,
  step: number,
  rows: readonly Video[],
  captions: readonly string[] = [],
): Promise<void> {
  const { samples } = runPaths(folder);
  await mkdir(samples, { recursive: true });
  await writeFileAtomic(join(samples, captionsFile), `${JSON.stringify(captions)}\n`);
  await writeFileAtomic(join(samples, `step-${String(step).padStart(8, '0')}.png`), encodePng(sheetOf(rows)));
}

/** A video of values of -1 to 1 at the size and rate of another; values beyond are clamped. */
export function fromPixels(values: Float32Array, like: Video): Video {
  const data = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    data[i] = Math.min(255, Math.max(0, Math.round(((values[i] ?? 0) + 1) * 127.5)));
  }
  return videoFrom(data, like);
}

function traceReconstruction(config: AutoencoderConfig, shape: readonly number[]) {
  const { graph } = trace(
    'reconstruct',
    (p, video) => {
      const parameters = p as Parameters<AutoencoderSpec>;
      return { video: decode(parameters, config, encode(parameters, config, video).mean) };
    },
    autoencoderSpec(config),
    { shape, dtype: 'f32' },
  );
  return graph;
}

/** One picture: a row for each video, of frames evenly spaced from first to last. */
function sheetOf(rows: readonly Video[]): Video {
  const first = at(rows, 0);
  const count = Math.min(framesShown, first.frames);
  const width = Math.max(...rows.map((row) => row.width)) * count;
  const height = rows.reduce((sum, row) => sum + row.height, 0);
  const data = new Uint8Array(3 * width * height);
  let top = 0;
  for (const row of rows) {
    for (let column = 0; column < count; column++) {
      const index = count === 1 ? 0 : Math.round((column * (row.frames - 1)) / (count - 1));
      const frame = frameAt(row, index);
      for (let y = 0; y < row.height; y++) {
        const line = frame.subarray(3 * y * row.width, 3 * (y + 1) * row.width);
        data.set(line, 3 * ((top + y) * width + column * row.width));
      }
    }
    top += row.height;
  }
  return videoFrom(data, { width, height, rate: 1 });
}
