import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { transformerPresets } from '../../../src/models/transformer/config.ts';
import { layoutSequence, sequenceTypes } from '../../../src/models/transformer/sequence.ts';
import { fold, keyFromSeed, normal } from '../../../src/random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../../src/tensor/host-tensor.ts';
import { elementCount, type TensorType } from '../../../src/tensor/shape.ts';
import type { Node } from '../../../src/tensor/tensor.ts';
import { leaves, mapTree } from '../../../src/tensor/tree.ts';
import type { Op } from '../../../src/tensor/vocabulary.ts';
import type { CommonRecipe } from '../../../src/training/recipe.ts';
import { stateTypes, stepNumbers, traceStep } from '../../../src/training/step.ts';
import { transformerTraining } from '../../../src/training/transformer-task.ts';
import { tinyRecipe } from '../../training/tiny.ts';
import { difference, evaluate } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
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

function transformerStep(recipe: CommonRecipe, processes = 1) {
  const model = transformerTraining(config);
  const tokens: TensorType = { shape: [2, 24], dtype: 'f32' };
  const patches: TensorType = { shape: [2, 24, 8], dtype: 'f32' };
  const types = { clean: patches, noise: patches, timesteps: tokens, weights: tokens };
  const samples = [
    [{ text: new Uint8Array(12).fill(97), grid: [2, 3, 3] as const }],
    [
      { text: new Uint8Array(8).fill(98), grid: [1, 3, 4] as const },
      { text: new Uint8Array(16).fill(99), grid: [1, 2, 4] as const },
    ],
  ];
  const sequence = layoutSequence(config, budget, samples);
  const traced = traceStep(model, { ...types, sequence: sequenceTypes(config, budget) }, recipe, processes);
  const draw = (seed: number, scale: number, positive: boolean) => (leaf: object, path: string) => {
    const { shape } = leaf as TensorType;
    const values = normal(fold(fold(keyFromSeed(seed), path), 'x'), elementCount(shape));
    return fromFloat32(
      'f32',
      shape,
      values.map((value) => scale * (positive ? Math.abs(value) : value)),
    );
  };
  const { parameters, moments, average } = stateTypes(model.spec);
  const state = {
    parameters: mapTree(parameters, draw(1, 0.2, false)),
    moments: {
      mean: mapTree(moments.mean, draw(2, 0.01, false)),
      square: mapTree(moments.square, draw(3, 0.01, true)),
    },
    average: mapTree(average, draw(4, 0.2, false)),
    alive: fromFloat32('f32', [], Float32Array.of(1)),
  };
  const batch = { ...mapTree(types, draw(5, 0.5, true)), sequence };
  const numbers = stepNumbers(recipe, 3, processes === 1 ? undefined : false);
  return { traced, values: [...leaves(state), ...leaves(batch), numbers] as HostTensor[] };
}

/** The first elements of a vector. */
function cut(tensor: HostTensor, shape: readonly number[]): HostTensor {
  return fromFloat32('f32', shape, toFloat32(tensor).slice(0, elementCount(shape)));
}

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `training steps in fused kernels on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const { traced, values } = transformerStep(adamRecipe);
    const muon = transformerStep(muonRecipe);
    const attentions: readonly Op[] = ['attention', 'attentionGradient'];
    const plans = [[], attentions].map((narrow) => {
      const isNarrow = ({ op }: Node) => narrow.includes(op);
      const generator = { prepare, isNarrow, partition: fusedPartition };
      return planStandIn(traced.graph, generator, traced.donate, attentions);
    });
    const [plan, narrowPlan] = [plans[0]!, plans[1]!];
    const muonPlan = planStandIn(
      muon.traced.graph,
      { prepare, isNarrow: () => false, partition: fusedPartition },
      muon.traced.donate,
      attentions,
    );
    const shared = transformerStep(adamRecipe, 2);
    const generator = { prepare, partition: fusedPartition };
    const sharedPlan = planStandIn(shared.traced.graph, generator, shared.traced.donate, attentions, true);
    let compiled: CpuKernels | undefined;
    beforeAll(async () => {
      compiled = await CpuKernels.compile(prelude, [...plans, muonPlan, sharedPlan].flatMap(kernelsOf));
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

    it('are those of the reference with Muon', async () => {
      const expected = await evaluate(new ReferenceExecutor(), muon.traced.graph, muon.values);
      const found = runStandIn(muonPlan, compiled!, muon.values);
      expected.forEach((tensor, index) => {
        const name = muon.traced.graph.outputNames[index]!;
        expect(difference(found[index]!, tensor, 1e-4), name).toBeUndefined();
      });
    });

    it('of two processes with the same batch are those of one, gradients added up in one launch', async () => {
      const doubled = (given: readonly HostTensor[]) =>
        given.map((one) =>
          fromFloat32(
            'f32',
            one.shape,
            toFloat32(one).map((value) => 2 * value),
          ),
        );
      const [expected, found] = [
        await evaluate(new ReferenceExecutor(), traced.graph, values),
        runStandIn(sharedPlan, compiled!, shared.values, doubled),
      ];
      expected.forEach((tensor, index) => {
        const own = index === 0 ? cut(found[0]!, tensor.shape) : found[index]!;
        expect(difference(own, tensor, 1e-5), traced.graph.outputNames[index]!).toBeUndefined();
      });
      const parameters = leaves(stateTypes(transformerTraining(config).spec).parameters).length;
      const collectives = sharedPlan.program.steps.flatMap(({ work, reads, writes }) =>
        work.kind === 'collective' ? [{ count: work.nodes.length, reads, writes }] : [],
      );
      // The weight of the batch, then all gradients and the metrics.
      expect(collectives.map(({ count }) => count)).toEqual([1, parameters + 1]);
      const { reads, writes } = collectives[1]!;
      const inPlace = reads.filter((read, i) => read.kind === 'value' && read.value === writes[i]);
      expect(inPlace.length).toBeGreaterThan(0.9 * parameters);
    });

    it('are nearly those with attention in bf16, which kernels write and read themselves', async () => {
      const [expected, found] = [plan, narrowPlan].map((one) => runStandIn(one, compiled!, values));
      expected!.forEach((tensor, index) => {
        expect(difference(found![index]!, tensor, 5e-3), traced.graph.outputNames[index]!).toBeUndefined();
      });
      const types = narrowPlan.stages.flatMap((stage) =>
        stage.kind === 'library' && attentions.includes(stage.node.op)
          ? [stage.node.operands.map((operand) => operand?.dtype).slice(0, 3)]
          : [],
      );
      expect(types.length).toBeGreaterThan(0);
      for (const list of types) expect(list).toEqual(['bf16', 'bf16', 'bf16']);
    });
  },
);
