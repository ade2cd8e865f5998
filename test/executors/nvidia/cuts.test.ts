import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { attributes, type Cudnn } from '../../../src/executors/nvidia/bindings/cudnn.ts';
import { cutOf } from '../../../src/executors/nvidia/cuts.ts';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import { operandsOfCall } from '../../../src/executors/nvidia/kernel.ts';
import {
  attentionBackward,
  attentionForward,
} from '../../../src/executors/nvidia/library/attention-graph.ts';
import { KeptPlans } from '../../../src/executors/nvidia/library/kept-plans.ts';
import {
  lowerAttention,
  lowerAttentionGradient,
} from '../../../src/executors/nvidia/library/lower-attention.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import type { Storage } from '../../../src/executors/nvidia/storage.ts';
import { ReferenceExecutor } from '../../../src/executors/reference/reference-executor.ts';
import { transformerBlock, transformerBlockSpec } from '../../../src/nn/transformer-block.ts';
import type { DType } from '../../../src/tensor/dtype.ts';
import { attention } from '../../../src/tensor/functions.ts';
import { gradients } from '../../../src/tensor/gradients.ts';
import { makeGraph } from '../../../src/tensor/graph.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../../src/tensor/host-tensor.ts';
import type { Shape, TensorType } from '../../../src/tensor/shape.ts';
import { type Node, resultsOf, type Tensor } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { type CaseInput, f32 } from '../cases.ts';
import { difference, evaluate, inputValues } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { HostLibraries, runCall } from './stand-in/host-libraries.ts';
import { kernelsOf, planStandIn, runStandIn } from './stand-in/stand-in-executor.ts';

const bf16: Storage = ({ dtype }) => (dtype === 'f32' ? 'bf16' : dtype);

/** The attention that a function of q, k and a tensor that values are cut out of ends in. */
function attentionOf(build: (q: Tensor, k: Tensor, joint: Tensor) => Tensor, shapes: readonly Shape[]) {
  const [q, k, joint] = shapes.map((shape) => f32(shape)) as [CaseInput, CaseInput, CaseInput];
  const { graph } = trace('attend', (a, b, c) => [build(a as Tensor, b as Tensor, c as Tensor)], q, k, joint);
  return graph.nodes.find(({ op }) => op === 'attention')!;
}

describe('values cut out of a wider tensor', () => {
  const tokens: Shape = [2, 6, 2, 16];
  const cutIn = (
    build: (q: Tensor, k: Tensor, joint: Tensor) => Tensor,
    joint: Shape = [2, 6, 96],
    storage: (tensor: Tensor) => 'bf16' | 'f32' = () => 'bf16',
  ) => {
    const cut = cutOf(attentionOf(build, [tokens, tokens, joint]), storage);
    return cut && [cut.whole.node.op, cut.start, cut.width, cut.step];
  };
  const channels = (joint: Tensor, from: number) => joint.slice(-1, from, from + 32).reshape(tokens);

  it('are a part of the channels, or of the heads, of each token', () => {
    expect(cutIn((q, k, joint) => attention(q, k, channels(joint, 64)))).toEqual(['input', 64, 32, 96]);
    const heads = (q: Tensor, k: Tensor, joint: Tensor) =>
      attention(q, k, joint.reshape([2, 6, 6, 16]).slice(2, 1, 3));
    expect(cutIn(heads)).toEqual(['input', 16, 32, 96]);
  });

  it('are not what other operands are too, of other tokens, out of line, packed, or not in bf16', () => {
    const last = (q: Tensor, k: Tensor, joint: Tensor) => attention(q, k, channels(joint, 64));
    expect(cutIn((q, _, joint) => attention(q, channels(joint, 64), channels(joint, 64)))).toBeDefined();
    const shared = (q: Tensor, _: Tensor, joint: Tensor) => {
      const both = channels(joint, 64);
      return attention(q, both, both);
    };
    expect(cutIn(shared)).toBeUndefined();
    expect(cutIn((q, k, joint) => attention(q, k, channels(joint, 4)))).toBeUndefined();
    expect(cutIn(last, [2, 6, 100])).toBeUndefined();
    expect(cutIn((q, k, joint) => attention(q, k, joint.slice(1, 1, 7)), [2, 8, 2, 16])).toBeUndefined();
    expect(cutIn(last, [2, 6, 96], () => 'f32')).toBeUndefined();
    const packed = trace(
      'packed',
      (q, k, joint, segments) => [attention(q, k, channels(joint, 64), { segments })],
      f32(tokens),
      f32(tokens),
      f32([2, 6, 96]),
      { shape: [2, 3], dtype: 'i32' },
    );
    expect(cutOf(packed.graph.nodes.find(({ op }) => op === 'attention')!, () => 'bf16')).toBeUndefined();
  });
});

/** A cuDNN without plans that notes sizes and strides of tensors in memory. */
function notingCudnn() {
  const notes = new Map<bigint, { sizes?: number[]; strides?: number[]; isVirtual?: boolean }>();
  const cudnn = {
    check: () => undefined,
    cudnnBackendCreateDescriptor: (_kind: number, out: Uint8Array) => {
      new DataView(out.buffer, out.byteOffset).setBigInt64(0, BigInt(notes.size + 1), true);
      notes.set(BigInt(notes.size + 1), {});
      return 0;
    },
    cudnnBackendSetAttribute: (of: bigint, name: number, _type: number, count: number, value: Uint8Array) => {
      const note = notes.get(of)!;
      const view = new DataView(value.buffer, value.byteOffset);
      const integers = () => Array.from({ length: count }, (_, i) => Number(view.getBigInt64(8 * i, true)));
      if (name === attributes.tensorSizes) note.sizes = integers();
      if (name === attributes.tensorStrides) note.strides = integers();
      if (name === attributes.tensorIsVirtual) note.isVirtual = true;
      return 0;
    },
  };
  const quiet = new Proxy(cudnn, { get: (known, name) => known[name as keyof typeof known] ?? (() => 0) });
  const inMemory = () =>
    [...notes.values()].flatMap(({ sizes: axes, strides, isVirtual }) =>
      axes !== undefined && isVirtual !== true ? [`${axes} by ${strides}`] : [],
    );
  return { cudnn: quiet as unknown as Cudnn, inMemory };
}

it('values have strides of their own in cuDNN graphs, gradients none', () => {
  const problem = { batch: 2, heads: 3, queries: 40, keys: 24, headSize: 16, scale: 1, hasLengths: false };
  const cutProblem = { ...problem, keyStep: 32, valueStep: 144 };
  const [forward, backward] = [notingCudnn(), notingCudnn()];
  const kept = new KeptPlans('no GPU', 0);
  expect(() => attentionForward(forward.cudnn, kept, cutProblem)).toThrow();
  expect(() => attentionBackward(backward.cudnn, kept, cutProblem)).toThrow();
  const [q, v] = ['2,3,40,16 by 1920,16,48,1', '2,3,24,16 by 4608,16,144,1'];
  expect(forward.inMemory().slice(1, 6)).toEqual([
    q,
    '2,3,16,24 by 1536,16,1,48',
    v,
    q,
    '2,3,40,1 by 120,40,1,1',
  ]);
  const gradient = '2,3,24,16 by 1536,16,48,1';
  expect(backward.inMemory().slice(1, 9)).toEqual([
    q,
    '2,3,16,24 by 1536,16,1,48',
    '2,3,16,24 by 4608,16,1,144',
    q,
    q,
    q,
    gradient,
    gradient,
  ]);
});

const sizes = { width: 32, headSize: 16, hidden: 48, context: 24 };
const isOfCall = ({ op }: Node) => op === 'attention' || op === 'attentionGradient';

/** Two blocks, and the gradients of the weights where there is a loss. */
function blocks(hasGradients: boolean) {
  const spec = { first: transformerBlockSpec(sizes), second: transformerBlockSpec(sizes) };
  const angles: TensorType = { shape: [1, 24, 8], dtype: 'f32' };
  return trace(
    'blocks',
    (p, x, context, layout) => {
      const y = transformerBlock(p.first, x, layout, undefined, context);
      const z = transformerBlock(p.second, y, layout, undefined, context);
      const loss = z.square().mean();
      return hasGradients ? { loss, gradients: gradients(loss, p) } : { z };
    },
    spec,
    f32([2, 24, 32]),
    f32([2, 8, 24]),
    { cos: angles, sin: angles },
  );
}

describe('blocks whose values are cut out of joint products', () => {
  const generator = { prepare, isNarrow: true, partition: fusedPartition };
  const plan = (hasGradients: boolean) =>
    planStandIn(blocks(hasGradients).graph, generator, [], ['attention', 'attentionGradient']);

  it('have no kernel that cuts them out: the bias is added by the product, which attention reads', () => {
    const { stages, program } = plan(false);
    const calls = stages.flatMap((stage) => (stage.kind === 'library' ? [stage] : []));
    expect(calls.filter(({ node }) => isOfCall(node)).map(({ cut }) => cut?.step)).toEqual([96, 64, 96, 64]);
    for (const { node, cut } of calls.filter((call) => isOfCall(call.node))) {
      expect(calls.some(({ tail }) => tail?.sum.node === cut!.whole.node)).toBe(true);
      expect(operandsOfCall({ kind: 'library', node, cut: cut! })[2]).toBe(cut!.whole);
    }
    expect(program.steps.map(({ name }) => name.split(/[_:]/)[0])).toMatchSnapshot();
  });

  it('keep the joint products alone for their gradients', () => {
    const { stages } = plan(true);
    const calls = stages.flatMap((stage) =>
      stage.kind === 'library' && isOfCall(stage.node) ? [stage] : [],
    );
    expect(calls).toHaveLength(8);
    const wholes = calls.map(({ cut }) => cut!.whole.node);
    expect(new Set(wholes).size).toBe(4);
  });

  it('are as before where all is stored in f32', () => {
    const wide = { prepare, partition: fusedPartition };
    const { stages } = planStandIn(blocks(false).graph, wide, [], ['attention']);
    expect(stages.filter((stage) => stage.kind === 'library' && stage.cut !== undefined)).toEqual([]);
  });
});

/** Sizes whose forward pass takes keys in two runs, or whose gradient takes queries in parts, are among these. */
const shapes: readonly (readonly [q: Shape, keys: number])[] = [
  [[2, 6, 2, 16], 7],
  [[1, 64, 2, 16], 128],
  [[2, 3072, 1, 16], 5],
  [[1, 2, 1, 16], 24_676],
];

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `cut values on the CPU${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const libraries = new HostLibraries();
    const rows = shapes.flatMap(([q, keys]) =>
      (['attention', 'attentionGradient'] as const)
        .filter((op) => op === 'attention' || keys < 1000)
        .map((op) => ({ name: `${op} of ${q} and ${keys} keys`, ...lowered(op, q, keys) })),
    );
    const traced = [false, true].map(blocks);
    const plans = traced.map(({ graph }) =>
      planStandIn(
        graph,
        { prepare, isNarrow: true, partition: fusedPartition },
        [],
        ['attention', 'attentionGradient'],
      ),
    );
    beforeAll(async () => {
      const kernels = [...rows.flatMap(({ call }) => call.kernels), ...plans.flatMap(kernelsOf)];
      libraries.compiled = await CpuKernels.compile(prelude, kernels);
    }, 60_000);
    afterAll(() => libraries.compiled?.[Symbol.dispose]());

    function lowered(op: 'attention' | 'attentionGradient', q: Shape, keys: number) {
      const [rowCount, , heads, headSize] = q as [number, number, number, number];
      const kv: Shape = [rowCount, keys, heads, headSize];
      const width = heads * headSize;
      const build = (...[a, b, joint, dy]: readonly [Tensor, Tensor, Tensor, Tensor]) => {
        const v = joint.slice(-1, width + 8, 2 * width + 8).reshape(kv);
        const y = attention(a, b, v);
        return op === 'attention' ? [y] : gradients(y.mul(dy).sum(), [a, b, v]);
      };
      const inputs = [f32(q), f32(kv), f32([rowCount, keys, 3 * width]), f32(q)] as const;
      const { graph } = trace(
        op,
        (...x) => [...build(...(x as [Tensor, Tensor, Tensor, Tensor]))],
        ...inputs,
      );
      const node = graph.nodes.find((one) => one.op === op)!;
      const cut = cutOf(node, bf16)!;
      const context = libraries.attention;
      const storage: Storage = (tensor) =>
        tensor.node.op === 'attention' && tensor.index === 1 ? 'f32' : bf16(tensor);
      const call =
        node.op === 'attentionGradient'
          ? lowerAttentionGradient(context, node, storage, cut)
          : lowerAttention(context, node as never, storage, cut);
      return { graph, node, cut, storage, call, inputs };
    }

    it.each(rows)('$name', async ({ name, graph, node, cut, storage, call, inputs }) => {
      const drawn = inputs.map((input, index) => rounded(inputValues(input, `${name}.${index}`)));
      const values = drawn.map((tensor, index) => spoken(tensor, index));
      const needed = operandsOfCall({ kind: 'library', node, cut });
      const results = resultsOf(node).slice(0, node.op === 'attention' ? 1 : 3);
      const wanted = makeGraph('wanted', graph.inputs, [...needed, ...results]);
      const found = await evaluate(new ReferenceExecutor(), wanted, values);
      const operands = needed.map((tensor, index) => narrow(found[index]!, storage(tensor)));
      const types = resultsOf(node).map((tensor) => ({ shape: tensor.shape, dtype: storage(tensor) }));
      const made = runCall(call, operands, types);
      found.slice(needed.length).forEach((tensor, index) => {
        expect(difference(narrow(made[index]!, 'f32'), tensor, 1e-2), `result ${index}`).toBeUndefined();
      });
    });

    it.each([0, 1])('in plans are those of the reference, nearly (%i)', async (index) => {
      const { graph } = traced[index]!;
      const values = graph.inputs.map((input, i) => inputValues(f32(input.shape), `blocks.${i}`));
      const expected = await evaluate(new ReferenceExecutor(), graph, values);
      const found = runStandIn(plans[index]!, libraries.compiled!, values);
      expected.forEach((tensor, i) => {
        expect(relativeError(found[i]!, tensor), graph.outputNames[i]!).toBeLessThan(6e-2);
      });
    });
  },
);

/** Values that bf16 holds. */
function rounded(tensor: HostTensor): HostTensor {
  return narrow(narrow(tensor, 'bf16'), 'f32');
}

function narrow(tensor: HostTensor, dtype: DType): HostTensor {
  return tensor.dtype === dtype ? tensor : fromFloat32(dtype as 'bf16', tensor.shape, toFloat32(tensor));
}

/** Length of the error relative to that of the vector. */
function relativeError(found: HostTensor, expected: HostTensor): number {
  const length = (values: Float64Array) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  const exact = Float64Array.from(expected.data);
  return length(exact.map((value, i) => found.data[i]! - value)) / length(exact);
}

/** Of many keys the last 200 alone have scores, large ones, so that those in a run of their own count. */
function spoken(tensor: HostTensor, operand: number): HostTensor {
  const [, keys] = tensor.shape as [number, number];
  const data = toFloat32(tensor);
  if (operand === 0)
    return fromFloat32(
      'f32',
      tensor.shape,
      data.map((value) => 8 * value),
    );
  const width = data.length / keys;
  const isSilent = (i: number) => operand === 1 && i / width < keys - 200 && keys > 1000;
  return fromFloat32(
    'f32',
    tensor.shape,
    data.map((value, i) => (isSilent(i) ? 0 : value)),
  );
}
