import { describe, expect, it } from 'vitest';
import { bytesAt } from '../../../src/executors/nvidia/bindings/native.ts';
import type { Kernel } from '../../../src/executors/nvidia/kernel.ts';
import type { AttentionProblem } from '../../../src/executors/nvidia/library/attention-graph.ts';
import type { CudnnTensor } from '../../../src/executors/nvidia/library/cudnn-graph.ts';
import {
  type Fp8Attention,
  type Fp8AttentionContext,
  lowerFp8Attention,
} from '../../../src/executors/nvidia/library/fp8-attention.ts';
import { lowerMatmul } from '../../../src/executors/nvidia/library/matmul.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { attention as computeAttention } from '../../../src/executors/reference/attention.ts';
import { fromHost, toHost, type Values } from '../../../src/executors/reference/values.ts';
import { attention, matmul } from '../../../src/tensor/functions.ts';
import { bytesOf, fromFloat32, type HostTensor, toFloat32, zeros } from '../../../src/tensor/host-tensor.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import type { NodeOf } from '../../../src/tensor/tensor.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { f32 } from '../cases.ts';
import { difference, inputValues } from '../comparison.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { HostLibraries, runCall } from './stand-in/host-libraries.ts';

const names = ['q', 'k', 'v', 'y'] as const;
const factors = ['descaleQ', 'descaleK', 'descaleV', 'scaleP', 'descaleP', 'scaleY'] as const;
const tensors = Object.fromEntries(
  [...names, ...factors, 'largestP', 'largestY', 'logSums'].map((name, id) => [
    name,
    { id, sizes: [], descriptor: 0n },
  ]),
) as unknown as Record<string, CudnnTensor>;

/** cuDNN's graph by plain loops, with the numbers that it is given in memory. */
function hostPlan(key: string): Fp8Attention {
  const problem = JSON.parse(key) as AttentionProblem & { readonly hasSums: boolean };
  const { batch, heads, queries, keys, keyStep = keys, headSize, scale, hasSums } = problem;
  const bind = (bound: readonly (readonly [CudnnTensor, bigint])[]) => () => {
    const address = (name: string) => bound.find(([{ id }]) => id === tensors[name]?.id)?.[1] ?? 0n;
    const number = (name: string) =>
      new DataView(bytesAt(address(name), 4).slice().buffer).getFloat32(0, true);
    const times = (by: number, values: Values) => ({ ...values, data: values.data.map((x) => x * by) });
    for (let item = 0; item < batch; item++) {
      const place = (name: string, step: number) => address(name) + BigInt(item * step * heads * headSize);
      const given = (name: string, count: number, step: number): Values => {
        const tensor = zeros('f8e4m3', [1, count, heads, headSize]);
        bytesOf(tensor).set(bytesAt(place(name, step), bytesOf(tensor).length));
        return fromHost(tensor);
      };
      const [q, k, v] = [given('q', queries, queries), given('k', keys, keyStep), given('v', keys, keyStep)];
      const ofV = number('descaleV') * number('scaleP') * number('descaleP') * number('scaleY');
      const type = { shape: [1, heads, queries], dtype: 'f32' as const };
      const [y, logSums] = computeAttention(
        [times(number('descaleQ'), q), times(number('descaleK'), k), times(ofV, v)],
        { scale },
        [{ shape: q.shape, dtype: 'f32' }, type],
      );
      const bytes = bytesOf(toHost({ shape: q.shape, dtype: 'f8e4m3', data: y }));
      bytesAt(place('y', queries), bytes.length).set(bytes);
      const sums = bytesOf(toHost({ ...type, data: logSums }));
      if (hasSums) bytesAt(address('logSums') + BigInt(item * sums.length), sums.length).set(sums);
    }
  };
  return {
    graph: {} as never,
    plan: { workspaceBytes: 64, bind } as never,
    tensors: tensors as never,
    ...(hasSums && { logSums: tensors.logSums! }),
  };
}

const reason = missingCompiler();

describe.skipIf(reason !== undefined)('library calls in f8e4m3', () => {
  it.each([0, 3])('gives attention its factors and tokens where they lie, %i keys apart', async (late) => {
    const shapes: [Shape, Shape, Shape] = [
      [2, 6, 2, 16],
      [2, 7, 2, 16],
      [2, 7, 2, 16],
    ];
    const { graph } = trace(
      'attention',
      (q, k, v) => [attention(q, k, v)],
      ...(shapes.map((shape) => f32(shape)) as [never, never, never]),
    );
    const node = graph.outputs[0]!.node as NodeOf<'attention'>;
    let compiled: CpuKernels | undefined;
    const context = {
      kernels: {
        bind: (kernel: Kernel, addresses: readonly bigint[]) => () => compiled?.run(kernel, addresses),
      },
      cudnn: {},
      quantised: { get: hostPlan, set: () => undefined },
      lateKeys: { get: () => late },
    } as unknown as Fp8AttentionContext;
    const call = lowerFp8Attention(context, node);
    compiled = await CpuKernels.compile(prelude, call.kernels);
    const operands = shapes.map((shape, index) => {
      const values = inputValues(f32(shape), `attention.${index}`);
      return fromFloat32('f8e4m3', shape, toFloat32(values));
    });
    const [found] = runCall(call, operands, [
      { shape: shapes[0], dtype: 'f8e4m3' },
      { shape: [2, 2, 6], dtype: 'f32' },
    ]);
    compiled[Symbol.dispose]();
    const [exact] = computeAttention(operands.map(fromHost) as [Values, Values, Values], node.attributes, [
      { shape: shapes[0], dtype: 'f32' },
      { shape: [2, 2, 6], dtype: 'f32' },
    ]);
    const expected = toHost({ shape: shapes[0], dtype: 'f8e4m3', data: exact });
    if (late === 0) expect([...found!.data]).toEqual([...expected.data]);
    const [wide, right] = [found!, expected].map((tensor) =>
      fromFloat32('f32', shapes[0], toFloat32(tensor)),
    ) as [HostTensor, HostTensor];
    // Results of both runs are rounded to steps of an eighth at most, and their mean again.
    expect(difference(wide, right, 1 / 8)).toBeUndefined();
  });

  it('gives cuBLASLt bytes: x w^T of f8e4m3, its result in bf16 or f32', () => {
    const shapes: [Shape, Shape] = [
      [2, 3, 16],
      [32, 16],
    ];
    const { graph } = trace(
      'product',
      (x, w) => [matmul(x, w, { transposeB: true })],
      ...(shapes.map((shape) => f32(shape)) as [never, never]),
    );
    const node = graph.outputs[0]!.node as NodeOf<'matmul'>;
    const { device, gemm } = new HostLibraries().convolution;
    const operands = shapes.map((shape, index) =>
      fromFloat32('f8e4m3', shape, toFloat32(inputValues(f32(shape), `product.${index}`))),
    );
    const [x, w] = operands.map(toFloat32) as [Float32Array, Float32Array];
    const exact = Float32Array.from({ length: 6 * 32 }, (_, i) => {
      const [row, column] = [Math.floor(i / 32), i % 32];
      return Array.from({ length: 16 }, (_, k) => x[16 * row + k]! * w[16 * column + k]!).reduce(
        (a, b) => a + b,
      );
    });
    for (const dtype of ['bf16', 'f32'] as const) {
      const call = lowerMatmul(device, gemm, node, (tensor) => (tensor.node === node ? dtype : 'f8e4m3'));
      const [found] = runCall(call, operands, [{ shape: [2, 3, 32], dtype }]);
      const widened = fromFloat32('f32', [2, 3, 32], toFloat32(found!));
      expect(
        difference(widened, fromFloat32('f32', [2, 3, 32], exact), dtype === 'f32' ? 1e-6 : 4e-3),
      ).toBeUndefined();
    }
  });
});
