/**
 * `node scripts/gpu/block-step.ts [precision] [runs]`: a training step of one transformer block with everything in it
 * (packed segments, modulation, cross-attention, recomputation, AdamW), compared with the reference executor. Small, so that it can
 * run under a checker of memory accesses:
 *
 *     compute-sanitizer --tool memcheck --leak-check full --error-exitcode 9 node scripts/gpu/block-step.ts tf32
 *
 * One run, the default, launches kernel by kernel; from the second on a run is a recorded graph.
 */
import { type DeviceBuffer, type Executor, inputsOf } from '../../src/executors/executor.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { initialize, type Parameters } from '../../src/nn/parameters.ts';
import { rotaryAngles } from '../../src/nn/rotary-positions.ts';
import {
  type TransformerBlockSpec,
  transformerBlock,
  transformerBlockSpec,
} from '../../src/nn/transformer-block.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { gradients } from '../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, hostTensor } from '../../src/tensor/host-tensor.ts';
import { at, elementCount, type TensorType } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { checkpoint, trace } from '../../src/tensor/trace.ts';
import { leaves, mapTree } from '../../src/tensor/tree.ts';
import { adamW } from '../../src/training/optimizer.ts';
import { difference } from '../../test/executors/comparison.ts';
import { openForScript } from './open.ts';

/** Largest error relative to the largest value, by precision; fp32 for a precision that is not here. */
const tolerances: Readonly<Record<string, number>> = { fp32: 1e-5, tf32: 2e-2, bf16: 5e-2 };

const [precision = 'tf32', runs = '1'] = process.argv.slice(2);
const [rows, tokens, texts, width] = [2, 96, 80, 128];
const key = keyFromSeed(3);

const spec = transformerBlockSpec({ width, headSize: 64, hidden: 256, condition: 'shared', context: width });
const f32 = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
const places = Array.from({ length: tokens }, (_, i) => [i >> 4, (i >> 2) & 3, i & 3]);
const drawn = mapTree(
  {
    x: f32(rows, tokens, width),
    target: f32(rows, tokens, width),
    modulation: f32(rows, tokens, 6 * width),
    context: f32(rows, texts, width),
  },
  random,
);
const fixed = {
  ...drawn,
  angles: rotaryAngles(places, [8, 12, 12]),
  segments: hostTensor('i32', [rows, 4], Int32Array.of(0, 40, 72, 96, 0, 33, 64, 90)),
};
const now = { rate: scalar(1e-2), epsilon: scalar(1e-8), keep: scalar(0.999) };
const state = {
  parameters: mapTree(initialize(spec, key), (leaf, path) => random(leaf as HostTensor, path, 0.1)),
  moments: {
    mean: mapTree(spec, (leaf, path) => random(leaf, `mean ${path}`, 0.1)),
    square: mapTree(spec, (leaf, path) => random(leaf, `square ${path}`, 1, Math.abs)),
  },
};

const layer = checkpoint(
  (p: Parameters<TransformerBlockSpec>, x: Tensor, given: Omit<Parameters<typeof fixed>, 'x' | 'target'>) => {
    const { angles, segments, modulation, context } = given;
    return transformerBlock(p, x, { ...angles, segments }, modulation, context);
  },
  'layer',
);
const traced = trace(
  'block step',
  (p, moments, { x, target, ...given }, step) => {
    const loss = layer(p, x, given).sub(target).square().mean();
    const result = adamW(p, gradients(loss, p), moments, step, { weightDecay: 0.1, maxNorm: 1 });
    return { parameters: result.parameters, state: result.state, loss };
  },
  state.parameters,
  state.moments,
  fixed,
  now,
);
const donate = inputsOf(traced.parameters, 0, 1);
const values = leaves([state.parameters, state.moments, fixed, now]) as HostTensor[];

const expected = await stepsOn(new ReferenceExecutor());
await using executor = await openForScript(precision);
const found = await stepsOn(executor);
const problems = expected.flatMap((tensor, index) => {
  const problem = difference(at(found, index), tensor, tolerances[precision] ?? 1e-5);
  return problem === undefined ? [] : [`${traced.graph.outputNames[index]} ${problem}`];
});
for (const problem of problems) console.log(problem);
console.log(`${runs} runs: ${problems.length} of ${expected.length} results differ`);
process.exitCode = problems.length === 0 ? 0 : 1;

/** Results of the last of `runs` steps. */
async function stepsOn(on: Executor): Promise<HostTensor[]> {
  const executable = await on.compile(traced.graph, { donate });
  let inputs = values.map((tensor) => on.upload(tensor));
  let outputs: readonly DeviceBuffer[] = [];
  for (let run = 0; run < Number(runs); run++) {
    if (run > 0) inputs = [...outputs.slice(0, donate.length), ...inputs.slice(donate.length)];
    outputs = await on.run(executable, inputs);
  }
  return Promise.all(outputs.map((output) => on.download(output)));
}

function random(
  { shape }: TensorType,
  path: string,
  deviation = 1,
  change: (value: number) => number = (value) => value,
): HostTensor {
  const draws = normal(fold(key, path), elementCount(shape));
  return fromFloat32(
    'f32',
    shape,
    draws.map((value) => change(deviation * value)),
  );
}

function scalar(value: number): HostTensor {
  return fromFloat32('f32', [], Float32Array.of(value));
}
