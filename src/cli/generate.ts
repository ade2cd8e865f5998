import { loadModel } from '../app.ts';
import { checkWritable } from '../atomic-file.ts';
import { type GenerateRequest, generate, planGeneration } from '../pipeline/generate.ts';
import type { ExtentRequest } from '../pipeline/request.ts';
import { writeVideo } from '../video/write.ts';
import { defineCommand, numberOption, UsageError } from './command.ts';
import {
  asUsage,
  deviceChoice,
  extentOptions,
  samplingOptions,
  samplingRequest,
  sizeOption,
  threadsOption,
} from './sampling-options.ts';
import { stageProgress } from './stage-progress.ts';

/** `zoetrope generate`. */
export const generateCommand = defineCommand({
  description: `Make a video from a prompt, at any size and duration; --frames 1 makes a still.

The result appears under its name only when it is complete; a file that has the name is replaced.

Exit code 0: the file is there. 1: the model, the device or the place was at fault. 2: a value was.`,
  positionals: [{ name: 'PROMPT', help: 'What the video shows' }],
  options: { ...samplingOptions, ...extentOptions },
  example: "zoetrope generate 'a red ball bounces on green grass at sunset' --out ball.mp4",
  async run({ values, positionals: [prompt = ''], terminal }) {
    const { out } = values;
    if (out === undefined) throw new UsageError('zoetrope generate: --out FILE is missing');
    const request: GenerateRequest = { ...samplingRequest(prompt, values), ...extentRequest(values) };
    await checkWritable(out);
    await using model = await loadModel(values.model, {
      device: deviceChoice(values.device),
      ...threadsOption(values.threads),
    });
    const plan = asUsage(() => planGeneration(model, request));
    const { signal } = terminal;
    const { onProgress, finish } = stageProgress(terminal);
    const frames = generate(model, { ...request, seed: plan.settings.seed }, { signal, onProgress });
    const written = await writeVideo(frames, out);
    finish();
    terminal.stdout.write(`Wrote ${out}: ${written.frames} frames, seed ${plan.settings.seed}\n`);
    return 0;
  },
});

interface ExtentValues {
  readonly size: string | undefined;
  readonly seconds: string | undefined;
  readonly frames: string | undefined;
  readonly fps: string;
}

function extentRequest({ size, seconds, frames, fps }: ExtentValues): ExtentRequest {
  return {
    rate: numberOption('fps', fps, { min: 0.1, max: 1000 }),
    ...(size !== undefined && { size: sizeOption(size) }),
    ...(seconds !== undefined && { seconds: numberOption('seconds', seconds, { min: 0, max: 100_000 }) }),
    ...(frames !== undefined && {
      frames: numberOption('frames', frames, { min: 1, max: 100_000, integer: true }),
    }),
  };
}
