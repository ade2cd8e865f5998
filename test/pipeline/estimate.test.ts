import { afterAll, describe, expect, it } from 'vitest';
import type { Executable, Executor } from '../../src/executors/executor.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { type EditPlan, edit, planExtend, planJoin, planLoop } from '../../src/pipeline/edit.ts';
import { estimateEdit, estimateGeneration } from '../../src/pipeline/estimate.ts';
import { type GenerateRequest, generate, planGeneration } from '../../src/pipeline/generate.ts';
import { givenVideo } from '../../src/pipeline/given-video.ts';
import type { SamplingRequest } from '../../src/pipeline/request.ts';
import { collect, pattern, tinyModel } from './tiny-model.ts';

/** Evaluations of the velocity that an executor was asked for. */
let evaluations = 0;
const executor = openOnnxExecutor();
const model = tinyModel({
  name: executor.name,
  compile: (...given) => executor.compile(...given),
  upload: (tensor) => executor.upload(tensor),
  download: (buffer) => executor.download(buffer),
  run: (executable: Executable, inputs) => {
    if (executable.graph.name === 'step') evaluations++;
    return executor.run(executable, inputs);
  },
  [Symbol.asyncDispose]: () => executor[Symbol.asyncDispose](),
} satisfies Executor);
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
