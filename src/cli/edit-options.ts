import type { EditPlan, NewFramesRequest } from '../pipeline/edit.ts';
import { edit } from '../pipeline/edit.ts';
import { estimateEdit } from '../pipeline/estimate.ts';
import { type GivenFile, givenFile } from '../pipeline/given-video.ts';
import type { Size } from '../video/frames.ts';
import { numberOption } from './command.ts';
import type { PreparedVideo, Workshop } from './make-video.ts';
import {
  asUsage,
  extentOptions,
  type SamplingValues,
  samplingOptions,
  samplingRequest,
  sizeOption,
} from './sampling-options.ts';

/** Options of commands that add frames to given videos. */
export const editOptions = {
  ...samplingOptions,
  size: {
    ...extentOptions.size,
    help: "Width and height in pixels (default: the video's, or about that of training)",
  },
  seconds: { type: 'string', value: 'S', help: 'Duration of the new frames' },
  frames: { type: 'string', value: 'N', help: 'Number of new frames, in place of --seconds' },
  fps: { ...extentOptions.fps, help: 'Frames a second at which the video is read, and the result plays' },
} as const;

/** Values of {@link editOptions} as the command line gives them. */
export interface EditValues extends SamplingValues {
  readonly size: string | undefined;
  readonly seconds: string | undefined;
  readonly frames: string | undefined;
  readonly fps: string;
}

/** The part of an edit's request that {@link editOptions} say. @throws UsageError for a value that cannot be used. */
export function editRequest(prompt: string, values: EditValues): NewFramesRequest {
  const { seconds, frames } = values;
  return {
    ...samplingRequest(prompt, values),
    ...(seconds !== undefined && { seconds: numberOption('seconds', seconds, { min: 0, max: 100_000 }) }),
    ...(frames !== undefined && {
      frames: numberOption('frames', frames, { min: 1, max: 100_000, integer: true }),
    }),
  };
}

/** Opens a file in the form that {@link editOptions} say; what they leave open of its size is as in `like`. */
export async function openGiven(
  { model, reader }: Workshop,
  values: EditValues,
  path: string,
  like?: Size,
): Promise<GivenFile> {
  const rate = numberOption('fps', values.fps, { min: 0.1, max: 1000 });
  const size = values.size === undefined ? like : sizeOption(values.size);
  return await givenFile(reader, path, { size, rate }, model.stride);
}

/** An edit ready to be made. @throws UsageError for a value that cannot be used. */
export async function preparedEdit(
  { model, terminal: { signal } }: Workshop,
  files: readonly GivenFile[],
  plan: (hooks: { readonly signal: AbortSignal }) => Promise<EditPlan>,
): Promise<PreparedVideo> {
  const planned = await asUsage(() => plan({ signal }));
  return {
    settings: planned.settings,
    extent: planned.extent,
    estimate: estimateEdit(model, planned),
    notes: files.flatMap(({ notes }) => notes),
    frames: (hooks) => edit(model, planned, hooks),
  };
}
