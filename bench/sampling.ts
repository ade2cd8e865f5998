/**
 * Time of a guided step of sampling, and two ways in which both prompts could share a run instead: as two rows of one
 * batch, or as two segments of one row. Weights are random. CPU time is that of all threads, those that wait included.
 *
 *     npx node bench/sampling.ts [THREADS=2] [ROUNDS=7]
 */
import { openExecutor } from '../src/app.ts';
import { disposeAll, uploadTree } from '../src/executors/executor.ts';
import { captionBytes } from '../src/models/text/caption-bytes.ts';
import { patchChannels, transformerPresets } from '../src/models/transformer/config.ts';
import { layoutSequence, type SequenceSample, sequenceTypes } from '../src/models/transformer/sequence.ts';
import { transformer, transformerSpec } from '../src/models/transformer/transformer.ts';
import { initialize } from '../src/nn/parameters.ts';
import { VelocityField } from '../src/pipeline/velocity-field.ts';
import { keyFromSeed, normal } from '../src/random/philox.ts';
import { fromFloat32 } from '../src/tensor/host-tensor.ts';
import { trace } from '../src/tensor/trace.ts';
import { leaves } from '../src/tensor/tree.ts';

const [threads = 2, rounds = 7] = process.argv.slice(2).map(Number);
const config = transformerPresets.micro;
const spec = transformerSpec(config);
const parameters = initialize(spec, keyFromSeed(1));
const channels = patchChannels(config);
const grid = [7, 4, 4] as const;
const tokens = 112;
const prompts = ['a red ball bounces on green grass at sunset', ''];
const patches = normal(keyFromSeed(3), tokens * channels);
const timesteps = new Float32Array(tokens).fill(0.6);

await using executor = await openExecutor('cpu', { threads });
const weights = leaves(uploadTree(executor, parameters));

async function sharedRun(rows: readonly (readonly SequenceSample[])[]): Promise<() => Promise<void>> {
  const [first = []] = rows;
  const text = Math.max(
    ...rows.map((row) => row.reduce((sum, { text: bytes }) => sum + bytes.length / 4, 0)),
  );
  const V = tokens * first.length;
  const budget = { rows: rows.length, textTokens: text, videoTokens: V, segments: first.length };
  const shape = [rows.length, V];
  const { graph } = trace(
    'shared',
    (p, x, sequence) => [transformer(p, config, { patches: x, sequence })],
    spec,
    { shape: [...shape, channels], dtype: 'f32' },
    sequenceTypes(config, budget),
  );
  const executable = await executor.compile(graph);
  const layout = leaves(uploadTree(executor, { ...layoutSequence(config, budget, rows) }));
  return async () => {
    const x = executor.upload(
      fromFloat32('f32', [...shape, channels], Float32Array.from([...patches, ...patches])),
    );
    const outputs = await executor.run(executable, [...weights, x, ...layout]);
    for (const output of outputs) await executor.download(output);
    disposeAll([x, ...outputs]);
  };
}

using field = new VelocityField(executor, config, parameters);
const velocities = await Promise.all(prompts.map((prompt) => field.under(prompt, grid)));
const samples = prompts.map((prompt) => ({ text: captionBytes(prompt, 320), grid, timesteps }));
const ways = {
  'two runs': async () =>
    void (await Promise.all(velocities.map((velocity) => velocity(patches, timesteps)))),
  'two rows': await sharedRun(samples.map((sample) => [sample])),
  'two segments': await sharedRun([samples]),
};
const found = new Map(Object.keys(ways).map((name) => [name, [] as { wall: number; cpu: number }[]]));
for (let round = 0; round <= rounds; round++) {
  for (const [name, step] of Object.entries(ways)) {
    const [cpu, begin] = [process.cpuUsage(), performance.now()];
    await step();
    const { user, system } = process.cpuUsage(cpu);
    if (round > 0) found.get(name)?.push({ wall: performance.now() - begin, cpu: (user + system) / 1000 });
  }
}
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]?.toFixed(0);
for (const [name, times] of found) {
  const [wall, cpu] = [times.map((time) => time.wall), times.map((time) => time.cpu)].map(median);
  console.log(`${name}: ${wall} ms on the clock, ${cpu} CPU ms`);
}
