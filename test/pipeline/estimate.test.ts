import { afterAll, describe, expect, it } from 'vitest';
import type { Executable, Executor } from '../../src/executors/executor.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { type EditPlan, edit, planExtend, planJoin, planLoop } from '../../src/pipeline/edit.ts';
import { estimateEdit, estimateGeneration } from '../../src/pipeline/estimate.ts';
import { type GenerateRequest, generate, planGeneration } from '../../src/pipeline/generate.ts';
import { givenVideo } from '../../src/pipeline/given-video.ts';
import { costOf } from '../../src/pipeline/graph-cost.ts';
import type { SamplingRequest } from '../../src/pipeline/request.ts';
import { VideoModel } from '../../src/pipeline/video-model.ts';
import type { Graph } from '../../src/tensor/tensor.ts';
import { collect, pattern, tinyModel, tinyWeightsWith } from './tiny-model.ts';

/** An executor that tells each run of a graph. */
function watched(onRun: (graph: Graph) => void): Executor {
  const executor = openOnnxExecutor();
  return {
    name: executor.name,
    compile: (...given) => executor.compile(...given),
    upload: (tensor) => executor.upload(tensor),
    download: (buffer) => executor.download(buffer),
    run: (executable: Executable, inputs) => {
      onRun(executable.graph);
      return executor.run(executable, inputs);
    },
    [Symbol.asyncDispose]: () => executor[Symbol.asyncDispose](),
  };
}

/** Evaluations of the velocity that an executor was asked for. */
let evaluations = 0;
const model = tinyModel(
  watched(({ name }) => {
    if (name === 'step') evaluations++;
  }),
);
afterAll(() => model[Symbol.asyncDispose]());

const usual = { prompt: 'a ball', seed: 7, steps: 10, size: { width: 16, height: 16 }, frames: 5 } as const;
const requests: Readonly<Record<string, Partial<GenerateRequest>>> = {
  'a prompt': {},
  'guidance in an interval': { guidanceInterval: [0.3, 0.8] },
  'no guidance, by Heun': { guidance: 1, sampler: 'heun' },
  'a preview': { preview: true },
  'a video': { video: pattern(5), strength: 0.4 },
  'a video with a preview': { video: pattern(5), strength: 0.3, preview: true },
  'a video that stays, with a preview': { video: pattern(5), strength: 0, preview: true },
};

it.each(Object.entries(requests))('tells the evaluations of %s', async (_, request) => {
  const full: GenerateRequest = { ...usual, ...request };
  const { evaluations: told } = estimateGeneration(model, planGeneration(model, full));
  evaluations = 0;
  await collect(generate(model, full));
  expect(told).toBe(evaluations);
});

const given = givenVideo(pattern(11));
const edits: Readonly<Record<string, (request: SamplingRequest) => Promise<EditPlan>>> = {
  'an extension': (request) => planExtend(model, { ...request, video: given, frames: 5 }),
  'an extension backward': (request) =>
    planExtend(model, { ...request, video: given, frames: 5, backward: true }),
  'a join': (request) => planJoin(model, { ...request, first: given, second: given, frames: 5 }),
  'a loop': (request) => planLoop(model, { ...request, video: given, frames: 5 }),
};
const samplings: Readonly<Record<string, Partial<SamplingRequest>>> = {
  'as it is by default': {},
  'with guidance in an interval': { guidanceInterval: [0.3, 0.8] },
  'without guidance, by Heun': { guidance: 1, sampler: 'heun' },
  'in one step': { steps: 1 },
};

describe.each(Object.entries(edits))('%s', (_name, planned) => {
  it.each(Object.entries(samplings))('%s costs the evaluations that are told', async (_, request) => {
    const plan = await planned({ prompt: 'a ball', seed: 7, steps: 10, ...request });
    const { evaluations: told, corrections } = estimateEdit(model, plan);
    evaluations = 0;
    let steps = 0;
    await collect(
      edit(model, plan, { onProgress: ({ stage, total }) => (steps = stage === 'sampling' ? total : steps) }),
    );
    expect(told).toBe(evaluations);
    expect(steps).toBe(plan.settings.steps + corrections);
  });
});

it('counts what a preview of a video costs: less of it with less strength', () => {
  const seconds = (request: Partial<GenerateRequest>) =>
    estimateGeneration(model, planGeneration(model, { ...usual, ...request, steps: 1000 })).seconds;
  const video = pattern(5);
  const costs = [
    seconds({ video, strength: 0.2, preview: true }),
    seconds({ video, strength: 0.5, preview: true }),
  ];
  expect(costs[0]).toBeLessThan(costs[1]!);
});

/** Makes a video of a side on a model, and tells the memory that its plan expected. */
const encoded: Readonly<Record<string, (model: VideoModel, side: number) => Promise<number>>> = {
  'an edit': async (other, side) => {
    const video = givenVideo(pattern(11, side, side));
    const plan = await planExtend(other, { prompt: 'a ball', seed: 7, steps: 4, video, frames: 1 });
    await collect(edit(other, plan));
    return estimateEdit(other, plan).memory;
  },
  'a video that is changed': async (other, side) => {
    const size = { width: side, height: side };
    const request = { ...usual, video: pattern(5, side, side), strength: 0.4, steps: 4, size };
    await collect(generate(other, request));
    return estimateGeneration(other, planGeneration(other, request)).memory;
  },
};

it.each(Object.entries(encoded))(
  'expects %s to take the memory of an encoder that takes most',
  async (_, make) => {
    let peak = 0;
    const executor = watched((graph) => {
      peak = Math.max(peak, costOf(graph).peakBytes);
    });
    // The encoder has a block at full size, where the decoder has none.
    const config = { channels: [24, 5, 6], encoderBlocks: [1, 0, 0], decoderBlocks: [0, 0, 0] } as const;
    await using other = new VideoModel(executor, tinyWeightsWith(config));
    const grown = { memory: 0, peak: 0 };
    for (const [sign, side] of [
      [-1, 32],
      [1, 96],
    ] as const) {
      peak = 0;
      grown.memory += sign * (await make(other, side));
      grown.peak += sign * peak;
    }
    // Planned for is five times what frames take in the encoder, which is a little less than all that a run of it takes.
    expect(grown.memory).toBeGreaterThan(4 * grown.peak);
  },
);

it('expects a CPU that may use one thread to take as much longer as it has more', async () => {
  const work = async (threads: number) => {
    await using other = tinyModel(openOnnxExecutor({ threads }));
    const plan = planGeneration(other, { ...usual, steps: 1000 });
    const { seconds } = estimateGeneration(other, { ...plan, settings: { ...plan.settings, steps: 1e6 } });
    return seconds;
  };
  const all = navigator.hardwareConcurrency;
  expect((await work(1)) / (await work(all))).toBeGreaterThan(0.8 * all);
  expect(await work(4 * all)).toBe(await work(all));
});
