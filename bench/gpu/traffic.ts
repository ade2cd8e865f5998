/**
 * `node bench/gpu/traffic.ts [autoencoder|transformer] [recipe] [rows]`, or `traffic.ts CASE [keep|recompute] [rows]` for a
 * transformer of `cases.ts` whose blocks are computed again or not: kernels of a training step and the bytes that they read and
 * write, for a kernel for each node and for fused kernels, in f32 and in bf16, without a GPU; then what the precision
 * `bf16` keeps in memory, and why; of a forward pass the same for `fp8`. Each kernel counts each tensor once, of what slices are cut from the slices; libraries
 * are counted, but not their bytes. Of a forward pass, whose weights are fixed, what is made of them once is counted apart.
 */

import type { LatentCache } from '../../src/data/latent-cache.ts';
import { fusedPartition } from '../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../src/executors/nvidia/fusion/prepare.ts';
import type { Partition, Stage, TakesTail } from '../../src/executors/nvidia/kernel.ts';
import { isForFp8 } from '../../src/executors/nvidia/library/fp8-products.ts';
import { gemmOfTail } from '../../src/executors/nvidia/library/matmul.ts';
import { type NarrowedGraph, narrowed, storageReport } from '../../src/executors/nvidia/narrowing.ts';
import { partition } from '../../src/executors/nvidia/plain/partition.ts';
import { bytesOfType, planProgram } from '../../src/executors/nvidia/program.ts';
import { quantised } from '../../src/executors/nvidia/quantising.ts';
import { ownStorage, type Storage } from '../../src/executors/nvidia/storage.ts';
import { transformerPresets } from '../../src/models/transformer/config.ts';
import { bytesPerElement } from '../../src/tensor/dtype.ts';
import { makeGraph } from '../../src/tensor/graph.ts';
import { inlineCalls } from '../../src/tensor/rewrite.ts';
import { formatType, type TensorType } from '../../src/tensor/shape.ts';
import type { Graph, Node, Tensor } from '../../src/tensor/tensor.ts';
import {
  autoencoderConfigOf,
  autoencoderPlanner,
  autoencoderTraining,
} from '../../src/training/autoencoder-task.ts';
import { readAutoencoderRecipe, readTransformerRecipe } from '../../src/training/recipe.ts';
import { traceStep } from '../../src/training/step.ts';
import { transformerPlanner, transformerTraining } from '../../src/training/transformer-task.ts';
import { type CaseName, cases } from './cases.ts';
import { makeWork } from './work.ts';

const [kind = 'transformer', file = `recipes/micro/${kind}.json`, shown = '12'] = process.argv.slice(2);

interface TracedWork {
  readonly graph: Graph;
  readonly donate: readonly number[];
  readonly fixed?: readonly number[];
}

async function tracedStep(): Promise<TracedWork> {
  if (kind !== 'autoencoder' && kind !== 'transformer') {
    const given = cases[kind as CaseName];
    return makeWork(given, { recompute: file === 'recompute' });
  }
  if (kind === 'autoencoder') {
    const recipe = await readAutoencoderRecipe(file);
    const config = autoencoderConfigOf(recipe, file);
    const [batch] = autoencoderPlanner(config, recipe).variants.values();
    return traceStep(autoencoderTraining(config, recipe), batch as object, recipe);
  }
  const recipe = await readTransformerRecipe(file);
  const config = { ...transformerPresets[recipe.preset as 'micro'], ...recipe.overrides };
  const clips = { header: { clips: 1 } } as LatentCache;
  const [batch] = transformerPlanner(config, recipe, clips).variants.values();
  return traceStep(transformerTraining(config), batch as object, recipe);
}

const libraries: readonly Node['op'][] = [
  'matmul',
  'convolution',
  'convolutionInputGradient',
  'convolutionKernelGradient',
  'attention',
  'attentionGradient',
];

const { graph, donate, fixed = [] }: TracedWork = await tracedStep();
const inlined = makeGraph(graph.name, graph.inputs, inlineCalls(graph.outputs), graph.outputNames);
const takes = ({ op }: Node) => libraries.includes(op);
const takesTail: TakesTail = (tail, storage) => gemmOfTail(tail, storage) !== undefined;
const asTyped = (given: typeof graph) => ({ graph: given, storage: ownStorage });
report('f32, a kernel for each node', asTyped(inlined), partition);
report('f32, fused', asTyped(prepare(inlined)), fusedPartition);
const narrow = narrowed(prepare(inlined), takes, takesTail);
const stages = report('bf16, fused', narrow, fusedPartition);
sayStorage(stages, narrow);
const scaled = quantised(prepare(inlined), (node, isRead) => isForFp8(node, isRead));
if (scaled.products.size > 0) {
  const quantising = narrowed(scaled.graph, takes, takesTail, scaled.products);
  sayStorage(report(`fp8, fused, ${scaled.products.size} products`, quantising, fusedPartition), quantising);
}

function sayStorage(made: readonly Stage[], how: NarrowedGraph): void {
  for (const { dtype, reason, tensors, bytes } of storageReport(made, how))
    console.log(`${gigabytes(bytes).padStart(10)} ${dtype} ${reason}, ${tensors} tensors`);
}

function report(
  name: string,
  { graph: given, storage }: { readonly graph: typeof graph; readonly storage: Storage },
  cut: Partition,
): readonly Stage[] {
  const start = performance.now();
  const still = new Set(fixed.map((index) => given.inputs[index]?.node));
  const stages = cut(given, { takes, takesTail, storage, isFixed: (node) => still.has(node) });
  const lower = () => ({ scratch: [], kernels: [], bind: () => [] });
  const { arenaBytes, prepared } = planProgram(given, stages, donate, lower, storage, undefined, fixed);
  const once = new Set(prepared.map(({ kernel }) => kernel));
  let [onceBytes, keptBytes] = [0, 0];
  const groups = new Map<string, { count: number; bytes: number }>();
  let [kernels, bytes, calls] = [0, 0, 0];
  const sources = new Set<string>();
  for (const stage of stages) {
    if (stage.kind === 'library') calls++;
    if (stage.kind !== 'kernel') continue;
    sources.add(stage.kernel.name);
    const asStored = (tensor: Tensor) => ({ shape: tensor.shape, dtype: storage(tensor) });
    const [inputs, outputs] = [stage.inputs.map(asStored), stage.outputs.map(asStored)];
    const own = moved(stage.kernel.source, inputs, outputs);
    if (once.has(stage.kernel)) {
      onceBytes += own;
      keptBytes += outputs.reduce((sum, type) => sum + bytesOfType(type), 0);
      continue;
    }
    kernels++;
    bytes += own;
    const types = (list: readonly TensorType[]) => list.map(formatType).join(' ');
    const key = `${stage.kernel.name}: ${types(inputs)} -> ${types(outputs)}`;
    const group = groups.get(key) ?? { count: 0, bytes: 0 };
    groups.set(key, { count: group.count + 1, bytes: group.bytes + own });
  }
  console.log(
    `${name}: ${kernels} kernels (${sources.size} sources), ${calls} library calls, ${gigabytes(bytes)} moved by kernels, ` +
      `arena ${gigabytes(arenaBytes)}, ${once.size} kernels once: ${gigabytes(onceBytes)}, ${gigabytes(keptBytes)} kept, cut in ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
  const rows = [...groups].sort(([, a], [, b]) => b.bytes - a.bytes).slice(0, Number(shown));
  for (const [key, group] of rows)
    console.log(
      `${gigabytes(group.bytes).padStart(10)} ${String(group.count).padStart(4)} x ${key.slice(0, 400)}`,
    );
  return stages;
}

/**
 * Bytes of a kernel: what it writes, and of each input all, or as many elements as the kernel walks over for each
 * different place where it is read, if that is less: a slice is not all that it is cut from.
 */
function moved(source: string, inputs: readonly TensorType[], outputs: readonly TensorType[]): number {
  const walked = elementsWalked(source);
  const read = inputs.map((type, index) => {
    const places = new Set(
      source.split('\n').flatMap((line) => {
        const [, place] = new RegExp(`\\bx${index}, (.*)\\);`).exec(line) ?? [];
        return place === undefined ? [] : [place];
      }),
    );
    const all = bytesOfType(type);
    if (places.size === 0 || walked === undefined) return all;
    return Math.min(all, places.size * walked * bytesPerElement(type.dtype));
  });
  return [...read, ...outputs.map(bytesOfType)].reduce((sum, bytes) => sum + bytes, 0);
}

/** Elements that a kernel's threads walk over, by its loops; undefined when they have another form. */
function elementsWalked(source: string): number | undefined {
  const number = (pattern: RegExp) => Number(pattern.exec(source)?.[1] ?? Number.NaN);
  const forms = [
    number(/if \(i0? >= (\d+)\) return/),
    number(/first < (\d+); first/) * number(/i0 = row \* (\d+)/),
    number(/column < (\d+)/) * number(/ r < (\d+)/),
  ];
  return forms.find((count) => !Number.isNaN(count));
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(2)} GB`;
}
