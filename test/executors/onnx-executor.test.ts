import { afterAll, describe, expect, it } from 'vitest';
import {
  BufferScope,
  type DeviceBuffer,
  downloadTree,
  type Executor,
  ExecutorError,
  inputsOf,
  uploadTree,
} from '../../src/executors/executor.ts';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { keyFromSeed, normal } from '../../src/random/philox.ts';
import { gather, gelu, matmul, softmax } from '../../src/tensor/functions.ts';
import { fromFloat32, hostTensor, zeros } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import type { Tensor } from '../../src/tensor/tensor.ts';
import { block, trace } from '../../src/tensor/trace.ts';

const f32 = (...shape: number[]) => ({ shape, dtype: 'f32' as const });
const host = (...values: number[]) => fromFloat32('f32', [values.length], Float32Array.from(values));
const double = trace('double', (x) => x.mul(2), f32(2)).graph;

/** What the contract promises of every executor. */
function describeContract(name: string, open: () => Executor): void {
  describe(`the contract, kept by ${name}`, () => {
    const executor = open();
    afterAll(() => executor[Symbol.asyncDispose]());

    it('copies what is uploaded', async () => {
      const value = host(1, 2);
      const buffer = executor.upload(value);
      value.data.fill(9);
      expect([...(await executor.download(buffer)).data]).toEqual([1, 2]);
    });

    it('takes effect in the order of the calls, awaited or not', async () => {
      const executable = await executor.compile(double);
      const x = executor.upload(host(1, 2));
      const running = executor.run(executable, [x]);
      x[Symbol.dispose]();
      const [y] = await running;
      expect([...(await executor.download(y!)).data]).toEqual([2, 4]);
    });

    it('keeps inputs, unless donated', async () => {
      const x = executor.upload(host(1, 2));
      await executor.run(await executor.compile(double), [x]);
      expect(x.disposed).toBe(false);
      const [y] = await executor.run(await executor.compile(double, { donate: [0] }), [x]);
      expect(x.disposed).toBe(true);
      expect([...(await executor.download(y!)).data]).toEqual([2, 4]);
    });

    it('gives outputs of their own when they are inputs, or each other', async () => {
      const { graph } = trace('same', (x) => [x, x, x.exp()], f32(2));
      const x = executor.upload(host(1, 2));
      const [a, b] = await executor.run(await executor.compile(graph), [x]);
      x[Symbol.dispose]();
      a![Symbol.dispose]();
      expect([...(await executor.download(b!)).data]).toEqual([1, 2]);
    });

    it('refuses what does not fit, in one line', async () => {
      const executable = await executor.compile(double);
      const x = executor.upload(host(1, 2, 3));
      await expect(executor.run(executable, [x])).rejects.toThrow(
        /^double: input 0 must be f32\[2\], got f32\[3\]$/,
      );
      await expect(executor.run(executable, [])).rejects.toThrow('double takes 1 inputs, got 0');
      x[Symbol.dispose]();
      await expect(executor.run(executable, [x])).rejects.toThrow(ExecutorError);
      await expect(executor.download(x)).rejects.toThrow(/was disposed/);
    });

    it('refuses buffers of another executor', async () => {
      await using other = openOnnxExecutor();
      const foreign = other.upload(host(1, 2));
      await expect(executor.run(await executor.compile(double), [foreign])).rejects.toThrow(
        /another executor/,
      );
    });

    it('frees a scope at its end, except what was released', async () => {
      let kept: DeviceBuffer;
      let dropped: DeviceBuffer;
      {
        using scope = new BufferScope();
        const buffers = scope.own(uploadTree(executor, { kept: host(1), dropped: host(2) }));
        kept = scope.release({ kept: buffers.kept }).kept;
        dropped = buffers.dropped;
      }
      expect([kept.disposed, dropped.disposed]).toEqual([false, true]);
      expect((await downloadTree(executor, { kept })).kept.data[0]).toBe(1);
    });
  });
}

describeContract('reference', () => new ReferenceExecutor());
describeContract('onnx cpu', () => openOnnxExecutor());
describeContract('onnx cpu, by its Node package', () => openOnnxExecutor({ binding: 'package' }));

describe('the ONNX executor', () => {
  it('leaves the event loop free while it computes', async () => {
    await using executor = openOnnxExecutor();
    const size = 700;
    const { graph } = trace(
      'heavy',
      (x) => Array.from({ length: 24 }).reduce<Tensor>((h) => matmul(h, h).mul(1e-3), x),
      f32(size, size),
    );
    const executable = await executor.compile(graph);
    const x = executor.upload(zeros('f32', [size, size]));
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await executor.run(executable, [x]);
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
  });

  it('shares sessions between graphs and drops those that nothing uses', async () => {
    await using executor = openOnnxExecutor();
    const layer = block('layer', (x: Tensor) => x.exp());
    const once = trace('once', (x) => layer(x), f32(2)).graph;
    const twice = trace('twice', (x) => layer(layer(x)), f32(2)).graph;
    const first = await executor.compile(once);
    const second = await executor.compile(twice);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    const [y] = await executor.run(second, [executor.upload(host(0, 0))]);
    expect((await executor.download(y!)).data[0]).toBeCloseTo(Math.E);
    second[Symbol.dispose]();
    await expect(executor.run(second, [executor.upload(host(0, 0))])).rejects.toThrow(
      /onnx cpu: program \d+ is not here; it was disposed/,
    );
  });

  it('reports what ONNX Runtime refuses, and goes on', async () => {
    await using executor = openOnnxExecutor();
    const { graph } = trace('rows', (table, i) => gather(table, i), f32(2), {
      shape: [1],
      dtype: 'i32' as const,
    });
    const executable = await executor.compile(graph);
    const run = async (row: number) => {
      const [y] = await executor.run(executable, [
        executor.upload(host(5, 6)),
        executor.upload(hostTensor('i32', [1], Int32Array.of(row))),
      ]);
      return (await executor.download(y!)).data[0];
    };
    await expect(run(2)).rejects.toThrow(/^onnx cpu: .*Gather/);
    expect(await run(1)).toBe(6);
  });

  it('rejects what is pending or asked after it was disposed', async () => {
    const executor = openOnnxExecutor();
    const executable = await executor.compile(double);
    const x = executor.upload(host(1, 2));
    const running = executor.run(executable, [x]);
    const settled = running.then(
      () => 'ran',
      (error: Error) => error.message,
    );
    await executor[Symbol.asyncDispose]();
    expect(['ran', 'onnx cpu: the executor was disposed']).toContain(await settled);
    await expect(executor.download(x)).rejects.toThrow('onnx cpu: the executor was disposed');
  });

  // ONNX Runtime splits a product by rows when it has more rows than columns, as token sequences do. Split by columns,
  // parts of 64 or fewer are summed in another order than the whole, and the last bits may differ.
  it('gives the same bits with one thread and with two', async () => {
    const results: Float32Array[] = [];
    const { graph } = trace('t', (x, w) => softmax(gelu(matmul(x, w))), f32(250, 300), f32(300, 70));
    const values = graph.inputs.map(({ shape }, k) =>
      fromFloat32('f32', shape, normal(keyFromSeed(k), elementCount(shape))),
    );
    for (const threads of [1, 2]) {
      await using executor = openOnnxExecutor({ threads });
      const executable = await executor.compile(graph);
      const [y] = await executor.run(
        executable,
        values.map((value) => executor.upload(value)),
      );
      results.push((await executor.download(y!)).data as Float32Array);
    }
    expect(results[0]).toEqual(results[1]);
  });

  it.each([
    [64, 384, 128],
    [112, 384, 128],
    [64, 300, 128],
    [1, 300, 96],
  ])('gives the same bits on any number of threads where rows are few: %i x %i x %i', async (M, K, N) => {
    const { graph } = trace(
      'few rows',
      (x, w, b) => [matmul(x, w, { transposeB: true }).add(b), matmul(x, w.reshape([K, N]))],
      f32(M, K),
      f32(N, K),
      f32(N),
    );
    const values = graph.inputs.map(({ shape }, i) =>
      fromFloat32('f32', shape, normal(keyFromSeed(i), elementCount(shape))),
    );
    const results: (readonly Float32Array[])[] = [];
    for (const threads of [1, 2, 4]) {
      await using executor = openOnnxExecutor({ threads });
      const executable = await executor.compile(graph);
      const outputs = await executor.run(
        executable,
        values.map((value) => executor.upload(value)),
      );
      const found = await Promise.all(outputs.map((output) => executor.download(output)));
      results.push(found.map(({ data }) => data as Float32Array));
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });
});

describe('inputsOf', () => {
  it('finds the inputs of some arguments of a traced function', () => {
    const { parameters } = trace('t', (p, x, s) => [p.a.add(x), s], { a: f32(1), b: f32(2) }, f32(1), f32());
    expect(inputsOf(parameters, 0)).toEqual([0, 1]);
    expect(inputsOf(parameters, 2, 1)).toEqual([2, 3]);
  });
});
