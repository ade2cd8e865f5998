import { latentShapeOf } from '../models/latent-spec.ts';
import { type Size, sliceFrames, type Video } from '../video/frames.ts';
import { decodeFrames } from './decode-frames.ts';
import type { RunHooks } from './progress.ts';
import {
  checkNumber,
  type Extent,
  type ExtentRequest,
  extentOf,
  RequestError,
  type SamplingRequest,
  type SamplingSettings,
  samplingSettings,
} from './request.ts';
import { type Passage, sampleLatents } from './sampling.ts';
import type { VideoModel } from './video-model.ts';

/** A video, or a still, from a prompt; at will from a first frame, or from another video. */
export interface GenerateRequest extends SamplingRequest, ExtentRequest {
  /** The first frame, of the size asked for; it becomes the first frame of the result as it is. */
  readonly image?: Video;
  /** A video of the size asked for, to be changed by the prompt (SDEdit, Meng et al. 2021). */
  readonly video?: Video;
  /** How much of `video` is made anew: the timestep from 0, nothing, to 1, everything. Default 0.6. */
  readonly strength?: number;
}

/** What will be made, before anything is computed. */
export interface GenerationPlan {
  readonly settings: SamplingSettings;
  readonly extent: Extent;
  /** Timestep at which sampling begins; below 1 for a video that is changed. */
  readonly from: number;
}

const defaultStrength = 0.6;

/**
 * Checks a request and says what it comes to.
 * @throws RequestError naming the first field whose value cannot be used.
 */
export function planGeneration(model: Pick<VideoModel, 'stride'>, request: GenerateRequest): GenerationPlan {
  const { image, video, strength } = request;
  const settings = samplingSettings(request);
  const extent = extentOf(video === undefined ? request : extentLike(video, request), model.stride);
  if (image !== undefined) checkImage(image, extent, video);
  if (video !== undefined) checkVideo(video, extent);
  if (strength !== undefined) {
    checkNumber('strength', strength, 0, 1);
    if (video === undefined)
      throw new RequestError('strength', 'says how far a video is changed; give the video');
  }
  return { settings, extent, from: video === undefined ? 1 : (strength ?? defaultStrength) };
}

/**
 * Makes a video and gives its frames piece by piece, in order, as they are decoded: write them with `writeVideo`. Memory
 * does not grow with what was given. Leaving the loop early frees everything.
 *
 * ```ts
 * await using model = await loadModel('micro');
 * await writeVideo(generate(model, { prompt: 'a red ball bounces on green grass', seed: 7 }), 'ball.mp4');
 * ```
 * @throws RequestError as {@link planGeneration}, before anything is computed.
 */
export async function* generate(
  model: VideoModel,
  request: GenerateRequest,
  hooks: RunHooks = {},
): AsyncGenerator<Video> {
  const plan = planGeneration(model, request);
  const passage = await passageOf(model, plan, request, hooks);
  const latents = await sampleWatched(model, passage, plan.settings, hooks);
  const { frames, rate } = plan.extent;
  const decoded = decodeFrames(model.codec, latents, { to: frames, rate }, hooks);
  if (request.image === undefined) yield* decoded;
  else yield* withFirstFrame(decoded, request.image);
}

/** What a request leaves open is as in the video. */
function extentLike({ width, height, rate, frames }: Video, request: ExtentRequest): ExtentRequest {
  const own = { size: { width, height }, rate, ...request };
  return request.seconds === undefined ? { ...own, frames: request.frames ?? frames } : own;
}

/** {@link sampleLatents} of a model, told as progress. */
export async function sampleWatched(
  model: VideoModel,
  passage: Passage,
  settings: SamplingSettings,
  { signal, onProgress }: RunHooks,
): ReturnType<typeof sampleLatents> {
  const report = (done: number, total: number) =>
    onProgress?.({ stage: 'sampling', done, total, unit: 'steps' });
  return await sampleLatents(model.field, model.config, passage, settings, { signal, onStep: report });
}

/** What is to be sampled for a plan. Frames are rounded up to whole latent frames; the surplus is cut when decoded. */
async function passageOf(
  { latent, codec }: VideoModel,
  { extent, from }: GenerationPlan,
  { image, video }: GenerateRequest,
  { onProgress }: RunHooks,
): Promise<Passage> {
  const shape = latentShapeOf(latent, extent.frames, extent);
  const given = video === undefined ? image : sliceFrames(video, 0, extent.frames);
  if (given === undefined) return { shape };
  const report = (done: number) =>
    onProgress?.({ stage: 'encoding', done, total: given.frames, unit: 'frames' });
  report(0);
  const latents = await codec.encode(given);
  report(given.frames);
  return video === undefined ? { shape, known: [{ at: 0, latents }] } : { shape, start: { latents, from } };
}

/** Frames of which the first is replaced. */
async function* withFirstFrame(pieces: AsyncIterable<Video>, first: Video): AsyncGenerator<Video> {
  let isFirst = true;
  for await (const piece of pieces) {
    if (isFirst) {
      yield { ...sliceFrames(piece, 0, 1), data: first.data };
      if (piece.frames > 1) yield sliceFrames(piece, 1);
    } else yield piece;
    isFirst = false;
  }
}

function checkImage(image: Video, extent: Extent, video: Video | undefined): void {
  const refuse = (problem: string): never => {
    throw new RequestError('image', problem);
  };
  if (video !== undefined) refuse('and a video cannot be given together; give one of the two');
  if (extent.frames < 2) refuse('would be the only frame; ask for more than one');
  if (image.frames !== 1) refuse(`has ${image.frames} frames; give one`);
  if (!sameSize(image, extent)) refuse(sizeProblem(image, extent));
}

function checkVideo(video: Video, extent: Extent): void {
  if (!sameSize(video, extent)) throw new RequestError('video', sizeProblem(video, extent));
  if (video.frames < extent.frames) {
    throw new RequestError('frames', `${extent.frames} are asked for, the video has ${video.frames}`);
  }
}

function sameSize(a: Size, b: Size): boolean {
  return a.width === b.width && a.height === b.height;
}

function sizeProblem(found: Size, wanted: Size): string {
  return `is ${found.width}x${found.height} pixels, ${wanted.width}x${wanted.height} are asked for; resize it`;
}
