import { latentShapeOf } from '../models/latent-spec.ts';
import { frameAt, joinFrames, type Size, sliceFrames, type Video } from '../video/frames.ts';
import { resizeVideo } from '../video/resize.ts';
import { decodeFrames, retimed } from './decode-frames.ts';
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
import { sampleWatched } from './sample-watched.ts';
import type { Passage } from './sampling.ts';
import { blendSeam } from './seam.ts';
import type { VideoModel } from './video-model.ts';

/** A video, or a still, from a prompt; at will from a first frame, or from another video. */
export interface GenerateRequest extends SamplingRequest, ExtentRequest {
  /** The first frame, of the size asked for; it becomes the first frame of the result as it is. */
  readonly image?: Video;
  /** A video of the size asked for, to be changed by the prompt (SDEdit, Meng et al. 2021). */
  readonly video?: Video;
  /** How much of `video` is made anew: the timestep from 0, nothing, to 1, everything. Default 0.6. */
  readonly strength?: number;
  /**
   * Make it at half the width and height first, and refine that to full size with the same model: steadier than sampling
   * a large video at once, whose tokens are more than training showed. Default false.
   */
  readonly preview?: boolean;
}

/** What planning must know of a video: its pixels are not needed. */
export type VideoForm = Omit<Video, 'data' | 'timestamps'>;

/** A {@link GenerateRequest} whose image and video may not have been read yet. */
export type PlannedRequest = Omit<GenerateRequest, 'image' | 'video'> & {
  readonly image?: VideoForm;
  readonly video?: VideoForm;
};

/** {@link RunHooks}, and what is shown on the way. */
export interface GenerateHooks extends RunHooks {
  /** Given the small video of a request with a preview, before it is refined. */
  readonly onPreview?: ((video: Video) => Promise<void>) | undefined;
}

/** What will be made, before anything is computed. */
export interface GenerationPlan {
  readonly settings: SamplingSettings;
  readonly extent: Extent;
  /** Timestep at which sampling begins; below 1 for a video that is changed, and after a preview. */
  readonly from: number;
  /** The video that is made first and refined: its size, and the timestep at which its own sampling begins. */
  readonly preview?: Size & { readonly from: number };
}

const defaultStrength = 0.6;

/** Timestep from which a preview is refined: what it shows stays, the detail that it cannot have is new. */
const refineFrom = 0.6;

/**
 * Checks a request and says what it comes to.
 * @throws RequestError naming the first field whose value cannot be used.
 */
export function planGeneration(model: Pick<VideoModel, 'stride'>, request: PlannedRequest): GenerationPlan {
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
  const from = video === undefined ? 1 : (strength ?? defaultStrength);
  if (request.preview !== true) return { settings, extent, from };
  const preview = { ...previewSize(extent, model.stride), from };
  return { settings, extent, from: Math.min(from, refineFrom), preview };
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
  hooks: GenerateHooks = {},
): AsyncGenerator<Video> {
  const plan = planGeneration(model, request);
  const source = await sourceOf(model, plan, request, hooks);
  const passage = await passageOf(model, plan, source, hooks);
  const latents = await sampleWatched(model, passage, plan.settings, hooks);
  const { frames, rate } = plan.extent;
  const decoded = decodeFrames(model.codec, latents, { to: frames, rate }, hooks);
  if (source.image === undefined) yield* decoded;
  else yield* retimed(after(source.image, decoded, frames - 1), rate);
}

/** What a request leaves open is as in the video. */
function extentLike({ width, height, rate, frames }: VideoForm, request: ExtentRequest): ExtentRequest {
  const own = { size: { width, height }, rate, ...request };
  return request.seconds === undefined ? { ...own, frames: request.frames ?? frames } : own;
}

/** What sampling is given: the first frame, and the video that is changed. */
type Source = Pick<GenerateRequest, 'image' | 'video'>;

/** The source of the full size: the request's own, or the preview made of it. */
async function sourceOf(
  model: VideoModel,
  { settings: { seed }, extent, preview }: GenerationPlan,
  request: GenerateRequest,
  hooks: GenerateHooks,
): Promise<Source> {
  const { image, video, preview: _preview, ...rest } = request;
  if (preview === undefined) return { ...(image && { image }), ...(video && { video }) };
  const { width, height } = preview;
  const small = { ...rest, seed, size: { width, height }, ...resized({ image, video }, preview) };
  const pieces: Video[] = [];
  for await (const piece of generate(model, small, previewHooks(hooks))) pieces.push(piece);
  const made = joinFrames(pieces);
  await hooks.onPreview?.(made);
  return { ...(image && { image }), video: resizeVideo(made, extent) };
}

function resized(
  { image, video }: { image: Video | undefined; video: Video | undefined },
  size: Size,
): Source {
  return {
    ...(image && { image: resizeVideo(image, size) }),
    ...(video && { video: resizeVideo(video, size) }),
  };
}

/** The preview's steps are told, its few frames are not. */
function previewHooks({ signal, onProgress }: RunHooks): RunHooks {
  return {
    signal,
    onProgress: (progress) => {
      if (progress.stage === 'sampling') onProgress?.({ ...progress, stage: 'previewing' });
    },
  };
}

/**
 * About half of each side, in whole strides, so that the aspect stays: what is refined must not be stretched.
 * @throws RequestError when a side has no smaller one.
 */
function previewSize({ width, height }: Size, stride: Size): Size {
  const smaller = (side: number, step: number) =>
    Array.from({ length: Math.max(0, Math.ceil(side / step) - 1) }, (_, i) => (i + 1) * step).filter(
      (candidate) => candidate >= 0.3 * side && candidate <= 0.8 * side,
    );
  const sizes = smaller(width, stride.width).flatMap((wide) =>
    smaller(height, stride.height).map((high) => ({ width: wide, height: high })),
  );
  const distance = (size: Size) => {
    const [across, down] = [Math.log(size.width / width), Math.log(size.height / height)];
    return Math.abs(across - down) + 0.1 * Math.abs(across + down - 2 * Math.log(0.5));
  };
  const [best] = sizes.sort((one, other) => distance(one) - distance(other));
  if (best !== undefined) return best;
  throw new RequestError('preview', `of ${width}x${height} pixels cannot be any smaller; leave it out`);
}

/** What is to be sampled for a plan. Frames are rounded up to whole latent frames; the surplus is cut when decoded. */
async function passageOf(
  { latent, codec }: VideoModel,
  { extent, from }: GenerationPlan,
  { image, video }: Source,
  { onProgress }: RunHooks,
): Promise<Passage> {
  const shape = latentShapeOf(latent, extent.frames, extent);
  const total = (image?.frames ?? 0) + (video === undefined ? 0 : extent.frames);
  if (total === 0) return { shape };
  const report = (done: number) => onProgress?.({ stage: 'encoding', done, total, unit: 'frames' });
  report(0);
  const first = image && (await codec.encode(image));
  const whole = video && (await codec.encode(sliceFrames(video, 0, extent.frames)));
  report(total);
  return {
    shape,
    ...(first && { known: [{ at: 0, latents: first }] }),
    ...(whole && { start: { latents: whole, from } }),
  };
}

/** Decoded frames of which the first is given, in its place the given one. */
async function* after(first: Video, decoded: AsyncIterable<Video>, frames: number): AsyncGenerator<Video> {
  yield first;
  yield* blendSeam(decoded, { before: frameAt(first, 0), frames });
}

function checkImage(image: VideoForm, extent: Extent, video: VideoForm | undefined): void {
  const refuse = (problem: string): never => {
    throw new RequestError('image', problem);
  };
  if (video !== undefined) refuse('and a video cannot be given together; give one of the two');
  if (extent.frames < 2) refuse('would be the only frame; ask for more than one');
  if (image.frames !== 1) refuse(`has ${image.frames} frames; give one`);
  if (!sameSize(image, extent)) refuse(sizeProblem(image, extent));
}

function checkVideo(video: VideoForm, extent: Extent): void {
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
