/** Runs in the browser: one transformer block forward on ONNX Runtime and on the reference executor. */
import type { Executor } from '../../src/executors/executor.ts';
import { openWebOnnxExecutor } from '../../src/executors/onnx/open-web.ts';
import { ReferenceExecutor } from '../../src/executors/reference/reference-executor.ts';
import { rotaryAngles } from '../../src/nn/rotary-positions.ts';
import { transformerBlock, transformerBlockSpec } from '../../src/nn/transformer-block.ts';
import { fold, keyFromSeed, normal } from '../../src/random/philox.ts';
import { fromFloat32, type HostTensor, toFloat32 } from '../../src/tensor/host-tensor.ts';
import { elementCount } from '../../src/tensor/shape.ts';
import { trace } from '../../src/tensor/trace.ts';

/** What the page found. */
export interface Report {
  readonly device: string;
  readonly values: number;
  /** Largest difference from the reference, relative to the largest value. */
  readonly error: number;
}

async function run(executor: Executor, device: string): Promise<Report> {
  const spec = transformerBlockSpec({ width: 16, headSize: 8, condition: 4 });
  const angles = rotaryAngles([[0], [1], [2], [3], [4]], [4]);
  const { graph } = trace(
    'block',
    (p, x, layout, c) => transformerBlock(p, x, layout, c),
    spec,
    { shape: [1, 5, 16], dtype: 'f32' as const },
    angles,
    { shape: [1, 1, 4], dtype: 'f32' as const },
  );
  const values = graph.inputs.map((input, index): HostTensor => {
    const name = input.node.op === 'input' ? input.node.attributes.name : '';
    if (name === '2.cos') return angles.cos;
    if (name === '2.sin') return angles.sin;
    return fromFloat32('f32', input.shape, normal(fold(keyFromSeed(2), index), elementCount(input.shape)));
  });
  const [found, expected] = [
    await evaluate(executor, graph, values),
    await evaluate(new ReferenceExecutor(), graph, values),
  ];
  const scale = expected.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  const error = expected.reduce(
    (worst, value, i) => Math.max(worst, Math.abs(value - (found[i] ?? Number.NaN)) / scale),
    0,
  );
  return { device, values: found.length, error };
}

async function evaluate(
  executor: Executor,
  graph: Parameters<Executor['compile']>[0],
  values: readonly HostTensor[],
): Promise<Float32Array> {
  const executable = await executor.compile(graph);
  const [output] = await executor.run(
    executable,
    values.map((value) => executor.upload(value)),
  );
  if (output === undefined) throw new Error('the block gave nothing');
  return toFloat32(await executor.download(output));
}

async function report(): Promise<Report> {
  const device = new URLSearchParams(location.search).get('device') === 'wasm' ? 'wasm' : 'webgpu';
  const worker = new Worker(new URL('../../src/executors/onnx/web-worker.ts', import.meta.url), {
    type: 'module',
  });
  await using executor = openWebOnnxExecutor(worker, { device, strict: device === 'webgpu' });
  return await run(executor, device);
}

const page = globalThis as { report?: Report | { readonly failure: string } };
report().then(
  (found) => {
    page.report = found;
  },
  (error: unknown) => {
    page.report = { failure: error instanceof Error ? error.message : String(error) };
  },
);
