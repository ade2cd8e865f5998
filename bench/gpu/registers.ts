/**
 * `node bench/gpu/registers.ts [autoencoder|transformer] [recipe] [precision] [rows]`: registers and spilled bytes of the
 * kernels of a training step that move most, as nvcc compiles them for Hopper: no GPU is needed, but CUDA's compiler.
 * Default: the transformer of micro, bf16, 20 rows. Kernels that spill hundreds of bytes hold too much of a row.
 */

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fusedPartition } from '../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../src/executors/nvidia/fusion/prepare.ts';
import type { Kernel, TakesTail } from '../../src/executors/nvidia/kernel.ts';
import { gemmOfTail } from '../../src/executors/nvidia/library/matmul.ts';
import { narrowed } from '../../src/executors/nvidia/narrowing.ts';
import { prelude } from '../../src/executors/nvidia/plain/prelude.ts';
import { ownStorage, storedBytes } from '../../src/executors/nvidia/storage.ts';
import { makeGraph } from '../../src/tensor/graph.ts';
import { inlineCalls } from '../../src/tensor/rewrite.ts';
import type { Node } from '../../src/tensor/tensor.ts';
import { randomSteps } from './random-step.ts';

const [kind = 'transformer', file = `recipes/micro/${kind}.json`, precision = 'bf16', shown = '20'] =
  process.argv.slice(2);

const [step] = await randomSteps(kind as 'transformer', file);
if (step === undefined) throw new Error(`${file} has no batches`);
const { graph } = step.traced;
const prepared = prepare(makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames));
const takes = ({ op }: Node) => /^(matmul|convolution|attention)/.test(op);
const takesTail: TakesTail = (tail, storedAs) => gemmOfTail(tail, storedAs) !== undefined;
const { graph: cut, storage } =
  precision === 'bf16' ? narrowed(prepared, takes, takesTail) : { graph: prepared, storage: ownStorage };
const found = new Map<string, { readonly kernel: Kernel; bytes: number; count: number }>();
for (const stage of fusedPartition(cut, { takes, takesTail, storage })) {
  if (stage.kind !== 'kernel') continue;
  const { kernel } = stage;
  const entry = found.get(kernel.name) ?? { kernel, bytes: 0, count: 0 };
  for (const tensor of [...stage.inputs, ...stage.outputs]) entry.bytes += storedBytes(tensor, storage);
  entry.count++;
  found.set(kernel.name, entry);
}
const rows = [...found.values()].sort((a, b) => b.bytes - a.bytes).slice(0, Number(shown));
const report = compiled(rows.map(({ kernel }) => kernel));
for (const { kernel, bytes, count } of rows) {
  const own = report.slice(report.indexOf(`'${kernel.name}'`));
  const [, stores = '?'] = /(\d+) bytes spill stores/.exec(own) ?? [];
  const [, registers = '?'] = /Used (\d+) registers/.exec(own) ?? [];
  console.log(
    `${(bytes / 1e9).toFixed(2)} GB ${count} x ${kernel.name}: blocks of ${kernel.block[0]} threads, ` +
      `${registers} registers, ${stores} bytes spilled`,
  );
}

/** What the compiler says of some kernels. */
function compiled(kernels: readonly Kernel[]): string {
  const folder = mkdtempSync(join(tmpdir(), 'zoetrope-registers-'));
  try {
    const source = join(folder, 'kernels.cu');
    writeFileSync(source, [prelude, ...kernels.map((kernel) => kernel.source)].join('\n'));
    const options = ['-arch=sm_90a', '-cubin', '-Xptxas', '-v', '-o', join(folder, 'kernels.cubin'), source];
    const { status, stderr, error } = spawnSync('nvcc', options, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`nvcc: ${error?.message ?? stderr.slice(0, 2000)}`);
    return stderr;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
