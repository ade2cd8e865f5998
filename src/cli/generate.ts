import { resolve } from 'node:path';
import { estimateGeneration } from '../pipeline/estimate.ts';
import { type GenerateRequest, generate, type PlannedRequest, planGeneration } from '../pipeline/generate.ts';
import { givenFile, readFrames } from '../pipeline/given-video.ts';
import { drawSeed, type ExtentRequest, trainedOn } from '../pipeline/request.ts';
import type { VideoModel } from '../pipeline/video-model.ts';
import type { Video } from '../video/frames.ts';
import type { MediaReader } from '../video/read.ts';
import { writeVideo } from '../video/write.ts';
import { defineCommand, numberOption, UsageError } from './command.ts';
import { expandedPrompt } from './expand-prompt.ts';
import { checkFormat, checkPlace, isStillFormat, makeVideo } from './make-video.ts';
import { asUsage, extentOptions, samplingOptions, samplingRequest, sizeOption } from './sampling-options.ts';

/** `zoetrope generate`. */
export const generateCommand = defineCommand({
  description: `Make a video from a prompt, at any size and duration; --frames 1, or a .png, makes a still.

--image gives the first frame. --video gives a video that is changed by the prompt, as much as --strength says.
--expand rewrites by rules, or by the chat endpoint OPENAI_BASE_URL (with OPENAI_API_KEY) and its ZOETROPE_EXPAND_MODEL.
The result appears under its name only when it is complete; a file that has the name is replaced.

Exit code 0: the file is there. 1: the model, a file, the device or the place was at fault. 2: a value was.`,
  positionals: [{ name: 'PROMPT', help: 'What the video shows' }],
  options: {
    ...samplingOptions,
    ...extentOptions,
    image: { type: 'string', value: 'FILE', help: 'First frame, cropped to the aspect of --size' },
    video: { type: 'string', value: 'FILE', help: 'Video to be changed; size and duration are as in it' },
    strength: { type: 'string', value: 'X', help: 'How much --video is changed, 0 to 1 (default 0.6)' },
    preview: { type: 'boolean', help: 'Make it small first, then refine that to full size' },
    expand: {
      type: 'boolean',
      help: 'Rewrite the prompt in detail first',
    },
    'preview-out': { type: 'string', value: 'FILE', help: 'Keep the small video too; implies --preview' },
  },
  example: "zoetrope generate 'a red ball bounces on green grass at sunset' --out ball.mp4",
  async run({ values, positionals: [prompt = ''], terminal }) {
    const { image, video } = values;
    const previewOut = values['preview-out'];
    if (image !== undefined && video !== undefined)
      throw new UsageError('zoetrope generate: --image and --video cannot be given together; give one');
    const sampling = { seed: drawSeed(), ...samplingRequest(prompt, values) };
    const request: GenerateRequest = {
      ...sampling,
      ...extentRequest(values),
      preview: values.preview || previewOut !== undefined,
      ...(values.strength !== undefined && {
        strength: numberOption('strength', values.strength, { min: 0, max: 1 }),
      }),
    };
    if (previewOut !== undefined) await checkPreviewPlace(previewOut, values.out);
    return await makeVideo('zoetrope generate', values, terminal, async ({ model, reader }) => {
      const given = await openGiven(reader, model, request, { image, video });
      // Before frames are read: what is wrong is told before anything long is done.
      const asked = await asUsage(() => planGeneration(model, { ...request, ...given.form }));
      for (const path of [values.out, previewOut]) if (path !== undefined) checkFormat(path, asked.extent);
      const planOnly = values.plan || values['dry-run'];
      const told = values.expand ? await expandedPrompt(prompt, sampling.seed, planOnly, terminal) : prompt;
      const full = { ...request, prompt: told, ...(await given.read(terminal.signal)) };
      const plan = await asUsage(() => planGeneration(model, full));
      if (previewOut !== undefined) checkFormat(previewOut, plan.extent);
      const onPreview =
        previewOut === undefined
          ? undefined
          : async (made: Video) => void (await writeVideo(made, previewOut));
      return {
        settings: plan.settings,
        extent: plan.extent,
        estimate: estimateGeneration(model, plan),
        notes: given.notes,
        frames: (hooks) => generate(model, full, { ...hooks, onPreview }),
      };
    });
  },
});

async function checkPreviewPlace(previewOut: string, out: string | undefined): Promise<void> {
  if (out !== undefined && resolve(out) === resolve(previewOut)) {
    throw new UsageError(`zoetrope: --preview-out ${previewOut} is --out too; give the preview another name`);
  }
  await checkPlace(previewOut);
}

interface ExtentValues {
  readonly out: string | undefined;
  readonly size: string | undefined;
  readonly seconds: string | undefined;
  readonly frames: string | undefined;
  readonly fps: string;
}

function extentRequest({ out, size, seconds, frames, fps }: ExtentValues): ExtentRequest {
  const open = seconds === undefined && frames === undefined;
  return {
    rate: numberOption('fps', fps, { min: 0.1, max: 1000 }),
    ...(size !== undefined && { size: sizeOption(size) }),
    ...(seconds !== undefined && { seconds: numberOption('seconds', seconds, { min: 0, max: 100_000 }) }),
    ...(frames !== undefined && {
      frames: numberOption('frames', frames, { min: 1, max: 100_000, integer: true }),
    }),
    ...(open && isStillFormat(out) && { frames: 1 }),
  };
}

/** Files that a generation is given. */
interface Given {
  /** What is known of them before their frames are read. */
  readonly form: Pick<PlannedRequest, 'image' | 'video'>;
  readonly notes: readonly string[];
  /** Reads them. @throws the signal's reason when it is aborted. */
  read(signal: AbortSignal): Promise<Pick<GenerateRequest, 'image' | 'video'>>;
}

/** Opens the files that a generation is given, in the size and rate of the request. */
async function openGiven(
  reader: MediaReader,
  model: VideoModel,
  request: GenerateRequest,
  { image, video }: { readonly image: string | undefined; readonly video: string | undefined },
): Promise<Given> {
  const { size = trainedOn.size, rate = trainedOn.rate } = request;
  if (image !== undefined) {
    return {
      form: { image: { ...size, rate, frames: 1 } },
      notes: [],
      read: async () => ({ image: (await reader.read(image, { maxFrames: 1, size, fit: 'cover' })).video }),
    };
  }
  if (video === undefined) return { form: {}, notes: [], read: async () => ({}) };
  const given = await givenFile(reader, video, { size: request.size, rate }, model.stride);
  const wanted = framesWanted(request, rate);
  const { width, height } = given;
  return {
    // How many frames a file has is known when it was read; until then it has as many as are asked for.
    form: { video: { width, height, rate, frames: Math.max(1, wanted ?? 1) } },
    notes: given.notes,
    read: async (signal) => ({ video: await readFrames(given, wanted, signal) }),
  };
}

function framesWanted({ frames, seconds }: ExtentRequest, rate: number): number | undefined {
  return frames ?? (seconds === undefined ? undefined : Math.round(seconds * rate));
}
