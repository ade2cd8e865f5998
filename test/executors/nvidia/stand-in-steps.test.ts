import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { transformerPresets } from '../../../src/models/transformer/config.ts';
import { layoutSequence, sequenceTypes } from '../../../src/models/transformer/sequence.ts';
import { fold, keyFromSeed, normal } from '../../../src/random/philox.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../../src/tensor/shape.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { leaves, mapTree } from '../../../src/tensor/tree.ts';
import type { Op } from '../../../src/tensor/vocabulary.ts';
import type { CommonRecipe } from '../../../src/training/recipe.ts';
import { stateTypes, stepNumbers, traceStep } from '../../../src/training/step.ts';
import { transformerTraining } from '../../../src/training/transformer-task.ts';
import { tinyRecipe } from '../../training/tiny.ts';
import { difference, evaluate } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { HostStreams } from './stand-in/host-streams.ts';
import { kernelsOf, planStandIn, runStandIn } from './stand-in/stand-in-executor.ts';

const config = {
  ...transformerPresets.micro,
  patch: [1, 1, 1] as const,
  channels: 8,
  width: 64,
  headSize: 32,
  layers: 2,
  hidden: 96,
  text: { width: 32, headSize: 16, layers: 1, hidden: 48 },
};
const budget = { rows: 2, videoTokens: 24, textTokens: 8, segments: 2 };
// A large epsilon: the size of an update must not hang on the sign of a gradient that is nearly 0.
const adamRecipe = { ...tinyRecipe, optimizer: { ...tinyRecipe.optimizer, epsilon: 1e-2 } };

const muonRecipe = { ...adamRecipe, optimizer: { ...adamRecipe.optimizer, method: 'muon' as const } };

/** Timesteps of tokens of which the first half is known. */
function halfKnown(tokens: number): Float32Array {
  return new Float32Array(tokens).fill(0.6, tokens / 2);
}

/** Types of a batch, and its sequence. */
function batchOf() {
  const tokens: TensorType = { shape: [2, 24], dtype: 'f32' };
  const patches: TensorType = { shape: [2, 24, 8], dtype: 'f32' };
  const types = { clean: patches, noise: patches, timesteps: tokens, weights: tokens };
  const samples = [
    [{ text: new TextEncoder().encode('red ball'), grid: [2, 3, 3] as const, timesteps: halfKnown(18) }],
    [
      { text: new TextEncoder().encode('a cat sleeps'), grid: [1, 3, 4] as const },
      { text: new TextEncoder().encode('two cars'), grid: [1, 2, 4] as const, timesteps: halfKnown(8) },
    ],
  ];
  return { types, sequence: layoutSequence(config, budget, samples) };
}

function transformerStep(recipe: CommonRecipe, processes = 1, isSharded = false) {
  const model = transformerTraining(config);
  const { types, sequence } = batchOf();
  const given = { ...types, sequence: sequenceTypes(config, budget) };
  const traced = traceStep(model, given, recipe, processes, isSharded);
  const draw = (seed: number, scale: number, positive: boolean) => (leaf: object, path: string) => {
    const { shape } = leaf as TensorType;
    const values = normal(fold(fold(keyFromSeed(seed), path), 'x'), elementCount(shape));
    return fromFloat32(
      'f32',
      shape,
      values.map((value) => scale * (positive ? Math.abs(value) : value)),
    );
  };
  const { parameters, moments, average, own } = stateTypes(model.spec, isSharded ? processes : undefined);
  const state = {
    parameters: mapTree(parameters, draw(1, 0.2, false)),
    moments: {
      mean: mapTree(moments.mean, draw(2, 0.01, false)),
      square: mapTree(moments.square, draw(3, 0.01, true)),
    },
    average: mapTree(average, draw(4, 0.2, false)),
    alive: fromFloat32('f32', [], Float32Array.of(1)),
    ...(own && { own: mapTree(own, draw(6, 0.2, false)) }),
  };
  const batch = { ...mapTree(types, draw(5, 0.5, true)), sequence };
  const numbers = stepNumbers(recipe, 3, processes === 1 ? undefined : false);
  return { traced, values: [...leaves(state), ...leaves(batch), numbers] as HostTensor[] };
}

/** The first elements of a vector. */
function cut(tensor: HostTensor, shape: readonly number[]): HostTensor {
  return fromFloat32('f32', shape, toFloat32(tensor).slice(0, elementCount(shape)));
}

/** Loss and gradients alone, and where their inputs are among those of the step. */
function gradientGraph() {
  const model = transformerTraining(config);
  const { types } = batchOf();
  const { parameters } = stateTypes(model.spec);
  const { graph } = trace(
    'gradients',
    (weights: object, batch: object) => {
      const { loss } = model.loss(weights, batch);
      return { loss, gradients: gradients(loss, weights) };
    },
    parameters,
    { ...types, sequence: sequenceTypes(config, budget) },
  );
  const count = leaves(parameters).length;
  const given = (values: readonly HostTensor[]) => [
    ...values.slice(0, count),
    ...values.slice(4 * count + 1, -1),
  ];
  return { graph, given };
}

/** Length of the error relative to that of the vector. */
function relativeError(found: HostTensor, expected: HostTensor): number {
  const length = (values: Float64Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  const exact = Float64Array.from(expected.data);
  return length(exact.map((value, i) => found.data[i]! - value)) / length(exact);
}

/** A few of the gradients of these small models. */
const bucketBytes = 16 << 10;

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `training steps in fused kernels on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const { traced, values } = transformerStep(adamRecipe);
    const muon = transformerStep(muonRecipe);
    const attentions: readonly Op[] = ['attention', 'attentionGradient'];
    const plans = [false, true].map((isNarrow) => {
      const generator = { prepare, isNarrow, partition: fusedPartition };
      return planStandIn(traced.graph, generator, traced.donate, attentions);
    });
    const [plan, narrowPlan] = [plans[0]!, plans[1]!];
    const slopes = gradientGraph();
    const narrow = { prepare, isNarrow: true, partition: fusedPartition };
    const slopePlan = planStandIn(slopes.graph, narrow, [], attentions);
    const muonPlans = [false, true].map((isNarrow) => {
      const generator = { prepare, isNarrow, partition: fusedPartition };
      return planStandIn(muon.traced.graph, generator, muon.traced.donate, attentions);
    });
    const shared = transformerStep(adamRecipe, 2);
    const streams = new HostStreams();
    const sharedPlans = [false, true].map((isNarrow) => {
      const generator = { prepare, isNarrow, partition: fusedPartition };
      const { graph, donate } = shared.traced;
      return planStandIn(graph, generator, donate, attentions, bucketBytes, streams.lower);
    });
    const divided = transformerStep(adamRecipe, 2, true);
    const dividedPlans = [false, true].map((isNarrow) => {
      const generator = { prepare, isNarrow, partition: fusedPartition };
      const { graph, donate } = divided.traced;
      return planStandIn(graph, generator, donate, attentions, bucketBytes, streams.lower);
    });
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      const all = [...plans, slopePlan, ...muonPlans, ...sharedPlans, ...dividedPlans];
      compiled = await CpuKernels.compile(prelude, all.flatMap(kernelsOf));
    }, 120_000);
    afterAll(() => compiled?.[Symbol.dispose]());

    it('are those of the reference, state updated in place', async () => {
      const expected = await evaluate(new ReferenceExecutor(), traced.graph, values);
      const found = runStandIn(plan, compiled!, values);
      expected.forEach((tensor, index) => {
        expect(difference(found[index]!, tensor, 1e-5), traced.graph.outputNames[index]!).toBeUndefined();
      });
      const { donations } = plan.program;
      expect(donations.size).toBe(traced.donate.length);
      expect([...donations.values()].filter(({ how }) => how === 'copy')).toHaveLength(0);
    });

    let muonFound: readonly HostTensor[] = [];
    it('are those of the reference with Muon', async () => {
      const expected = await evaluate(new ReferenceExecutor(), muon.traced.graph, muon.values);
      muonFound = runStandIn(muonPlans[0]!, compiled!, muon.values);
      expected.forEach((tensor, index) => {
        const name = muon.traced.graph.outputNames[index]!;
        expect(difference(muonFound[index]!, tensor, 1e-4), name).toBeUndefined();
      });
    }, 120_000);

    /** Checks the shared step against that of one process, which has the same batch. */
    const expectShared = (
      found: readonly HostTensor[],
      expected: readonly HostTensor[],
      tolerance: number,
      name: string,
    ) =>
      expected.forEach((tensor, index) => {
        const own = index === 0 ? cut(found[0]!, tensor.shape) : found[index]!;
        const wrong = difference(own, tensor, tolerance);
        expect(wrong, `${traced.graph.outputNames[index]}, ${name}`).toBeUndefined();
      });

    it('of two processes with the same batch are those of one, whenever gradients are exchanged', async () => {
      const sums = (given: readonly HostTensor[]) =>
        given.map((one) =>
          fromFloat32(
            'f32',
            one.shape,
            toFloat32(one).map((value) => 2 * value),
          ),
        );
      const expected = await evaluate(new ReferenceExecutor(), traced.graph, values);
      sharedPlans.forEach((sharedPlan, isNarrow) => {
        for (const isLate of [false, true]) {
          const found = runStandIn(sharedPlan, compiled!, shared.values, { sums, isLate });
          expectShared(found, expected, isNarrow ? 1e-2 : 1e-5, `${isLate ? 'late' : 'early'}`);
        }
      });
    }, 120_000);

    it('exchange gradients on a stream of its own while others are computed', async () => {
      const expected = await evaluate(new ReferenceExecutor(), traced.graph, values);
      streams.compiled = compiled;
      for (const isSideFirst of [false, true]) {
        using communicator = streams.connect(2);
        const { binding, outputs } = streams.bind(sharedPlans[0]!, communicator, shared.values);
        binding.run();
        streams.finish(isSideFirst);
        expectShared(outputs(), expected, 1e-5, isSideFirst ? 'side stream first' : 'main stream first');
        // From the second run on as a graph, in which nothing may be left that is not waited for.
        binding.run();
        streams.finish(isSideFirst);
        binding.dispose();
      }
    }, 120_000);

    it('of parts of the moments are those of the reference, parameters put together where they are', async () => {
      // The other process has the same data.
      const echo = { rank: 0, world: 2, exchange: async (bytes: Uint8Array) => [bytes, bytes] };
      const expected = await evaluate(new ReferenceExecutor(echo), divided.traced.graph, divided.values);
      streams.compiled = compiled;
      for (const [isNarrow, one] of dividedPlans.entries()) {
        for (const isSideFirst of [false, true]) {
          using communicator = streams.connect(2);
          const { binding, outputs } = streams.bind(one, communicator, divided.values);
          binding.run();
          streams.finish(isSideFirst);
          binding.dispose();
          const found = outputs();
          expected.forEach((tensor, index) => {
            const wrong = difference(found[index]!, tensor, isNarrow ? 1e-2 : 1e-5);
            expect(wrong, divided.traced.graph.outputNames[index]!).toBeUndefined();
          });
        }
        const { donations, steps } = one.program;
        expect([...donations.values()].filter(({ how }) => how === 'inPlace')).toHaveLength(
          divided.traced.donate.length,
        );
        const ops = steps.flatMap(({ work }) =>
          work.kind === 'start' ? work.nodes.map(({ op }) => op) : [],
        );
        expect(ops.filter((op) => op === 'allGather').length).toBeGreaterThan(10);
        expect(ops.filter((op) => op === 'reduceScatter').length).toBe(
          ops.filter((op) => op === 'allGather').length,
        );
      }
    }, 120_000);

    it('exchange gradients in buckets, each as soon as it is made, where they are', () => {
      const parameters = leaves(stateTypes(transformerTraining(config).spec).parameters).length;
      for (const { program, storage } of sharedPlans) {
        const starts = program.steps.flatMap((step, position) =>
          step.work.kind === 'start' ? [{ ...step, nodes: step.work.nodes, position }] : [],
        );
        // The weight of the batch, then all gradients and the metrics.
        expect(starts[0]!.nodes.length).toBe(1);
        expect(starts.length).toBeGreaterThan(5);
        const nodes = starts.flatMap((start) => start.nodes);
        expect(nodes.length).toBe(parameters + 2);
        for (const { operands } of nodes) expect(storage(operands[0])).toBe('f32');
        const inPlace = starts.flatMap(({ reads, writes }) =>
          reads.filter((read, i) => read.kind === 'value' && read.value === writes[i]),
        );
        expect(inPlace.length).toBeGreaterThan(0.9 * parameters);
        for (const { reads, writes, position, nodes: own } of starts) {
          const bytes = writes.reduce((sum, value) => sum + program.bytes[value]!, 0);
          expect(own.length === 1 || bytes <= bucketBytes).toBe(true);
          const made = reads.map((read) =>
            program.steps.findLastIndex(
              (step, index) => index < position && read.kind === 'value' && step.writes.includes(read.value),
            ),
          );
          // Nothing is computed between the last operand and the start but what starts too.
          const between = program.steps.slice(Math.max(...made) + 1, position);
          expect(between.every(({ work }) => work.kind === 'start')).toBe(true);
        }
        // Most of the backward pass runs beside what is exchanged.
        const first = starts[1]!.position;
        const lastMatmul = program.steps.findLastIndex(({ name }) => name.startsWith('matmul'));
        const beside = starts.filter(({ position }) => position < lastMatmul);
        expect(beside.length).toBeGreaterThan(0.7 * starts.length);
        expect(program.steps.slice(first, lastMatmul).some(({ work }) => work.kind === 'wait')).toBe(false);
      }
    });

    it('in bf16 are nearly those with Muon', () => {
      const found = runStandIn(muonPlans[1]!, compiled!, muon.values);
      muonFound.forEach((tensor, index) => {
        const name = muon.traced.graph.outputNames[index]!;
        expect(difference(found[index]!, tensor, 3e-2), name).toBeUndefined();
      });
    }, 120_000);

    it('in bf16 are nearly those, state in f32 and updated in place', () => {
      const [expected, found] = [plan, narrowPlan].map((one) => runStandIn(one, compiled!, values));
      expected!.forEach((tensor, index) => {
        expect(difference(found![index]!, tensor, 1e-2), traced.graph.outputNames[index]!).toBeUndefined();
      });
      const { donations } = narrowPlan.program;
      expect([...donations.values()].filter(({ how }) => how === 'inPlace')).toHaveLength(
        traced.donate.length,
      );
    });

    it('in bf16 follow gradients that are off by hundredths of their length', async () => {
      const expected = await evaluate(new ReferenceExecutor(), slopes.graph, slopes.given(values));
      const found = runStandIn(slopePlan, compiled!, slopes.given(values));
      expected.forEach((tensor, index) => {
        // Rounding to 8 bits, 2e-3 on average, some dozen times on the way; scores of attention are the most sensitive.
        const name = slopes.graph.outputNames[index]!;
        const bound = name === 'loss' ? 1e-2 : /queryScale|keyScale/.test(name) ? 1e-1 : 5e-2;
        expect(relativeError(found[index]!, tensor), name).toBeLessThan(bound);
      });
    });
  },
);
