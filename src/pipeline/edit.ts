import { UserError } from '../errors.ts';
import type { HostTensor } from '../tensor/host-tensor.ts';
import { fromFloat32 } from '../tensor/host-tensor.ts';
import { at, elementCount } from '../tensor/shape.ts';
import { joinFrames, sliceFrames, type Video } from '../video/frames.ts';
import { decodeFrames, retimed } from './decode-frames.ts';
import { contextFrames, type EditLayout, latentsAtSeams, layoutEdit } from './edit-layout.ts';
import { endsOf, type GivenVideo } from './given-video.ts';
import type { RunHooks } from './progress.ts';
import { putBack, seamOf } from './put-back.ts';
import {
  checkSize,
  type Extent,
  extentOf,
  RequestError,
  type SamplingRequest,
  type SamplingSettings,
  samplingSettings,
} from './request.ts';
import { sampleWatched } from './sample-watched.ts';
import type { LatentCorrection, Passage, PlacedLatents } from './sampling.ts';
import { blendSeam } from './seam.ts';
import type { VideoModel } from './video-model.ts';

/** How many frames an edit adds. */
export interface NewFramesRequest extends SamplingRequest {
  /** New frames, 1 or more. Default: by `seconds`. */
  readonly frames?: number;
  /** Duration of the new frames, in place of `frames`; the rate is that of the given video. */
  readonly seconds?: number;
}

/** A video made longer at its end, or at its beginning. */
export interface ExtendRequest extends NewFramesRequest {
  readonly video: GivenVideo;
  /** New frames come before the given ones. Default false. */
  readonly backward?: boolean;
}

/** Two videos made one by new frames between them. Both must have the same size and rate. */
export interface JoinRequest extends NewFramesRequest {
  readonly first: GivenVideo;
  readonly second: GivenVideo;
}

/** A video made endless by new frames that lead from its end to its beginning. */
export interface LoopRequest extends NewFramesRequest {
  readonly video: GivenVideo;
}

/** What an edit will do. */
export interface EditPlan {
  readonly settings: SamplingSettings;
  /** Of the result, given frames included. */
  readonly extent: Extent;
  readonly layout: EditLayout;
  /** Given videos that are shown before and after the new frames. */
  readonly shown: { readonly before?: GivenVideo; readonly after?: GivenVideo };
  /** Given frames next to the new ones: the last of the video before, the first of the video after. */
  readonly context: { readonly before?: Video; readonly after?: Video };
}

/** New frames that are made when a request says nothing else. */
const defaultFrames = { extend: 16, between: 12 } as const;

/**
 * Plans to extend a video; goes through it once.
 * @throws RequestError naming the first field whose value cannot be used; UserError when the video cannot be read, or is
 * too short.
 */
export async function planExtend(
  model: VideoModel,
  { video, backward = false, ...request }: ExtendRequest,
  { signal }: RunHooks = {},
): Promise<EditPlan> {
  const side = backward ? { after: video } : { before: video };
  return await planEdit(model, { ...request, ...side, shown: side, usual: defaultFrames.extend }, signal);
}

/** Plans to join two videos; goes through each once. @throws RequestError as {@link planExtend}. */
export async function planJoin(
  model: VideoModel,
  { first, second, ...request }: JoinRequest,
  { signal }: RunHooks = {},
): Promise<EditPlan> {
  if (first.width !== second.width || first.height !== second.height || first.rate !== second.rate) {
    const [a, b] = [first, second].map(({ width, height, rate }) => `${width}x${height} at ${rate}`);
    throw new RequestError('second', `is ${b} frames a second, the first is ${a}; read both alike`);
  }
  const sides = { before: first, after: second };
  return await planEdit(model, { ...request, ...sides, shown: sides, usual: defaultFrames.between }, signal);
}

/** Plans to loop a video; goes through it once. @throws RequestError as {@link planExtend}. */
export async function planLoop(
  model: VideoModel,
  { video, ...request }: LoopRequest,
  { signal }: RunHooks = {},
): Promise<EditPlan> {
  const sides = { before: video, after: video };
  const shown = { before: video };
  return await planEdit(model, { ...request, ...sides, shown, usual: defaultFrames.between }, signal);
}

/**
 * Makes what was planned and gives its frames in order: the given ones as they are, the new ones as they are decoded.
 * Memory grows neither with the given video nor with what was given out.
 */
export async function* edit(model: VideoModel, plan: EditPlan, hooks: RunHooks = {}): AsyncGenerator<Video> {
  const { shown, extent } = plan;
  yield* retimed(inOrder(shown.before, newFrames(model, plan, hooks), shown.after), extent.rate);
}

interface Edit extends NewFramesRequest {
  readonly before?: GivenVideo;
  readonly after?: GivenVideo;
  readonly shown: EditPlan['shown'];
  /** New frames by default. */
  readonly usual: number;
}

async function planEdit(model: VideoModel, edit: Edit, signal: AbortSignal | undefined): Promise<EditPlan> {
  const { before, after, shown, usual, frames, seconds } = edit;
  const settings = samplingSettings(edit);
  const like = before ?? after;
  if (like === undefined) throw new RangeError('an edit needs a video');
  checkSize(like, model.stride);
  const asked = frames === undefined && seconds === undefined ? { frames: usual } : { frames, seconds };
  const { width, height, rate } = like;
  const added = extentOf({ ...definedOnly(asked), size: { width, height }, rate }, model.stride);
  const [stride] = model.latent.stride;
  const wanted = contextFrames(stride);
  const ends = async (given: GivenVideo | undefined) =>
    given && (await endsOf(given, { first: wanted.after, last: wanted.before }, signal));
  const endsBefore = await ends(before);
  const endsAfter = after === before ? endsBefore : await ends(after);
  const layout = layoutEdit(
    {
      frames: added.frames,
      before: before && endsBefore?.count,
      after: after && endsAfter?.count,
    },
    stride,
  );
  if (after !== undefined && layout.after?.groups === 0) {
    const needed = layout.after.shared + stride;
    throw new UserError(`${after.name}: has ${endsAfter?.count} frames; give at least ${needed}`);
  }
  const total = [shown.before && endsBefore, shown.after && endsAfter].reduce(
    (sum, given) => sum + (given?.count ?? 0),
    added.frames,
  );
  return {
    settings,
    extent: { ...added, frames: total },
    layout,
    shown,
    context: {
      ...(before && endsBefore && { before: endsBefore.last }),
      ...(after && endsAfter && { after: endsAfter.first }),
    },
  };
}

/** Entries that have a value. */
function definedOnly(values: { frames?: number | undefined; seconds?: number | undefined }) {
  const { frames, seconds } = values;
  return { ...(frames !== undefined && { frames }), ...(seconds !== undefined && { seconds }) };
}

async function* inOrder(
  before: GivenVideo | undefined,
  between: AsyncIterable<Video>,
  after: GivenVideo | undefined,
): AsyncGenerator<Video> {
  if (before !== undefined) yield* before.frames();
  yield* between;
  if (after !== undefined) yield* after.frames();
}

async function* newFrames(model: VideoModel, plan: EditPlan, hooks: RunHooks): AsyncGenerator<Video> {
  const { layout, context, settings, extent } = plan;
  const passage = await passageOf(model, plan, hooks);
  const latents = await sampleWatched(model, passage, settings, hooks);
  // With the decoded neighbours of the new frames, of which the given ones are known.
  const range = {
    from: context.before === undefined ? layout.from : layout.from - 1,
    to: context.after === undefined ? layout.to : layout.to + 1,
    rate: extent.rate,
  };
  yield* blendSeam(decodeFrames(model.codec, latents, range, hooks), seamOf(plan));
}

/** What is sampled: known latents on the sides that are given, and frames to be resolved. */
async function passageOf(
  { codec, latent }: VideoModel,
  plan: EditPlan,
  { onProgress, signal }: RunHooks,
): Promise<Passage> {
  const { layout, context, extent } = plan;
  const [, rows, columns] = latent.stride;
  const shape = [layout.latentFrames, extent.height / rows, extent.width / columns, latent.channels] as const;
  const known: PlacedLatents[] = [];
  const total =
    (layout.before?.frames ?? 0) + (layout.after === undefined ? 0 : (context.after?.frames ?? 0));
  onProgress?.({ stage: 'encoding', done: 0, total, unit: 'frames' });
  if (layout.before !== undefined && context.before !== undefined) {
    const end = context.before.frames - layout.before.shared;
    const encoded = sliceFrames(context.before, end - layout.before.frames, end);
    known.push({ at: 0, latents: await codec.encode(encoded) });
  }
  signal?.throwIfAborted();
  if (layout.after !== undefined && context.after !== undefined) {
    const { at: place, shared, groups } = layout.after;
    known.push({ at: place, latents: await encodeAfter(codec, context.after, shared, groups) });
  }
  onProgress?.({ stage: 'encoding', done: total, total, unit: 'frames' });
  return { shape, known, correction: correctionOf(codec, plan, signal) };
}

/** Latent frames at the seams are not known, but pixels in them are. */
function correctionOf(
  codec: VideoModel['codec'],
  plan: EditPlan,
  signal: AbortSignal | undefined,
): LatentCorrection {
  const ranges = latentsAtSeams(plan.layout, codec.spec.stride[0]);
  const frames = ranges.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, i) => from + i));
  return {
    frames: new Set(frames),
    better: (expected) => putBack(codec, expected, plan, { signal }),
  };
}

/**
 * Latents of groups of four frames of a video, the first from frame `shared` on, as they would be in the middle of one.
 *
 * The encoder looks back, to frames that are still to be made. It is shown the first given frame standing still for as
 * long as it looks. On worlds, of a variance of 1, the first group's latents are then 0.005 from what they are behind the
 * true frames, the next ones' 0.0001; behind the empty border of a video's beginning the first are 0.007 from it.
 */
async function encodeAfter(
  codec: VideoModel['codec'],
  video: Video,
  shared: number,
  groups: number,
): Promise<HostTensor<'f32'>> {
  const [stride] = codec.spec.stride;
  const lead = Math.ceil((shared + codec.encoderMemory) / stride);
  const first = sliceFrames(video, 0, 1);
  const still = Array.from({ length: 1 + lead * stride - shared }, () => first);
  const latents = await codec.encode(joinFrames([...still, sliceFrames(video, 0, shared + groups * stride)]));
  return lastFrames(latents, groups);
}

function lastFrames({ shape, data }: HostTensor<'f32'>, count: number): HostTensor<'f32'> {
  const [T, ...frame] = [at(shape, 0), ...shape.slice(1)];
  return fromFloat32('f32', [count, ...frame], data.slice((T - count) * elementCount(frame)));
}
