import { afterAll, describe, expect, it } from 'vitest';
import type { DeviceBuffer, Executor } from '../../src/executors/executor.ts';
import { flattened, inPlacePairs } from '../../src/executors/onnx/flat.ts';
import { copierModel } from '../../src/executors/onnx/model.ts';
import { MemoryPool } from '../../src/executors/onnx/native/memory-pool.ts';
import { NativeRuntime } from '../../src/executors/onnx/native/native-runtime.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { gelu } from '../../src/tensor/functions.ts';
import { fromFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import type { Graph, Tensor } from '../../src/tensor/tensor.ts';
import { trace } from '../../src/tensor/trace.ts';

const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });

describe('the memory pool', () => {
  it('gives back what was given, aligned to cache lines, and near sizes share', () => {
    const pool = new MemoryPool();
    const block = pool.take(1_000_000);
    expect(block.size).toBeGreaterThanOrEqual(1_000_000);
    expect(block.size).toBeLessThanOrEqual(1_125_000);
    expect(block.address % 64n).toBe(0n);
    pool.give(block);
    expect(pool.take(990_000)).toBe(block);
    expect(pool.take(1_000_000)).not.toBe(block);
  });

  it('serves a little less from a spare block before it makes one, but not much less', () => {
    const pool = new MemoryPool();
    const block = pool.take(3 << 20);
    pool.give(block);
    const smaller = pool.take(2 << 20);
    expect(smaller).toBe(block);
    pool.give(smaller);
    expect(pool.take(1 << 20)).not.toBe(block);
  });

  it('holds no more than was once in use, and frees at once what it lets go', () => {
    const pool = new MemoryPool();
    const [first, second] = [pool.take(1 << 20), pool.take(1 << 20)];
    pool.give(first);
    pool.give(second);
    const other = pool.take(1.5 * 2 ** 20);
    expect([first.buffer.detached, second.buffer.detached]).toEqual([true, true]);
    pool.give(other);
    expect(other.buffer.detached).toBe(false);
    pool.trim();
    expect(other.buffer.detached).toBe(true);
  });
});

describe('the C library', () => {
  it('runs a session on values of ours, and says what it refuses', async () => {
    const runtime = new NativeRuntime();
    runtime.start({ device: 'cpu', threads: 1, strict: false, scoreBytes: 2 ** 24 });
    await expect(runtime.createSession({ model: Uint8Array.of(1, 2), pool: true })).rejects.toThrow(/\w/);
    const session = await runtime.createSession({ model: copierModel('float', 2), pool: true });
    const x = runtime.upload({ type: 'float32', shape: [1, 2], data: Float32Array.of(3, 4) });
    const run = { session, feeds: [['value', x] as const], spare: new Set<never>() };
    const fetch = { name: 'copy', type: 'float32' as const, shape: [2], modelShape: [1, 2] };
    const [y] = await runtime.run({ ...run, fetches: [fetch] });
    expect(await runtime.download(y!)).toEqual({ type: 'float32', shape: [2], data: Float32Array.of(3, 4) });
    await expect(runtime.run({ ...run, fetches: [{ ...fetch, name: 'other' }] })).rejects.toThrow(/other/);
    runtime.release(x);
    runtime.release(y!);
    await runtime.releaseSession(session);
    runtime.close();
  });
});

describe('elementwise graphs', () => {
  const step = trace(
    'step',
    (p, g, m, rate) => {
      const mean = m.mul(0.9).add(g.mul(0.1));
      return { p: p.sub(mean.div(g.square().add(1)).mul(rate)), mean };
    },
    f32(3, 5),
    f32(3, 5),
    f32(3, 5),
    f32(),
  ).graph;

  it('are flattened, scalars staying scalars', () => {
    const flat = flattened(step, [0, 1])!;
    expect(flat.inputs.map(({ shape }) => shape)).toEqual([[15], [15], [15], []]);
    expect(flat.outputs.map(({ shape }) => shape)).toEqual([[15], [15]]);
  });

  it('are not flat when they broadcast, reduce or move elements', () => {
    const others: ((x: Tensor, row: Tensor) => Tensor)[] = [
      (x, row) => x.add(row),
      (x) => x.sum(),
      (x) => x.transpose([1, 0]),
      (x) => x,
    ];
    for (const build of others)
      expect(flattened(trace('t', build, f32(3, 5), f32(5)).graph, [0])).toBeUndefined();
  });

  it('write over inputs that are read no later', () => {
    expect(inPlacePairs(flattened(step, [0, 1])!)).toEqual([
      [0, 0],
      [1, 2],
    ]);
    // Nothing says which exponential is made last, and so which may lie over x.
    const { graph } = trace('t', (x) => [x.exp(), x.exp().add(x)], f32(4));
    expect(inPlacePairs(flattened(graph, [0, 1])!)).toEqual([]);
    // The kernel of gelu reads its operand again after it has begun to write.
    expect(inPlacePairs(trace('t', (x) => [gelu(x.neg())], f32(4)).graph)).toEqual([[0, 0]]);
    expect(inPlacePairs(trace('t', (x) => [gelu(x)], f32(4)).graph)).toEqual([]);
  });

  for (const binding of ['library', 'package'] as const) {
    describe(`through the ${binding}`, () => {
      const executor = openOnnxExecutor({ binding });
      afterAll(() => executor[Symbol.asyncDispose]());
      const size = 300_001;
      const graph = trace('long', (a, b) => [a.mul(2).add(b), a.sub(b)], f32(size), f32(size)).graph;

      it('run on several stretches, and leave what is not donated alone', async () => {
        const inputs = uploadNormal(executor, graph);
        const [a, b] = await values(executor, inputs);
        const results = await executor.run(await executor.compile(graph), inputs);
        const [sum, difference] = await values(executor, results);
        expect(sum).toEqual(a!.map((x, i) => Math.fround(Math.fround(2 * x) + b![i]!)));
        expect(difference).toEqual(a!.map((x, i) => Math.fround(x - b![i]!)));
        expect(await values(executor, inputs)).toEqual([a, b]);
      });

      it('give the same over donated inputs, a value given twice among them', async () => {
        const inputs = uploadNormal(executor, graph);
        const [a, b] = await values(executor, inputs);
        const donating = await executor.compile(graph, { donate: [0, 1] });
        const [sum] = await values(executor, await executor.run(donating, inputs));
        expect(sum).toEqual(a!.map((x, i) => Math.fround(Math.fround(2 * x) + b![i]!)));
        const { graph: twice } = trace('twice', (x) => [x.mul(3).sub(x)], f32(size));
        const [x] = uploadNormal(executor, twice);
        const [before] = await values(executor, [x!]);
        const [y] = await executor.run(await executor.compile(twice, { donate: [0] }), [x!]);
        const [after] = await values(executor, [y!]);
        expect(after).toEqual(before!.map((v) => Math.fround(Math.fround(3 * v) - v)));
      });
    });
  }
});

function uploadNormal(executor: Executor, graph: Graph): DeviceBuffer[] {
  return graph.inputs.map(({ shape }, k) =>
    executor.upload(fromFloat32('f32', shape, normal(keyFromSeed(k), elementCount(shape)))),
  );
}

async function values(executor: Executor, buffers: readonly DeviceBuffer[]): Promise<Float32Array[]> {
  const tensors = await Promise.all(buffers.map((buffer) => executor.download(buffer)));
  return tensors.map(({ data }) => data as Float32Array);
}
