import { at, elementCount } from '../../../tensor/shape.ts';
import { constant, type Node, type NodeOf, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Kernel, Stage } from '../kernel.ts';
import { resultOf, storageType } from '../plain/expression.ts';
import { namedKernel, threads } from '../plain/named-kernel.ts';
import type { Storage } from '../storage.ts';
import { keptValues } from './kept-values.ts';
import { eachOf, indexInWhole, isVectorised, type Read, type RowSpace, RowWriter } from './row-writer.ts';

/** A tensor that a fused kernel writes. */
export interface Store {
  readonly value: Tensor;
  /** The tensor in memory: the value itself, or one that it is a part of. */
  readonly target: Tensor;
  /** Where the value begins in the target. */
  readonly axis: number;
  readonly offset: number;
}

/** What one kernel computes. */
export interface GroupWork {
  readonly space: RowSpace;
  /** Sums and maxima over rows that are computed here. */
  readonly reductions: readonly NodeOf<'sum' | 'max'>[];
  /** Sums over all rows, a result for each place in the row. */
  readonly columns: readonly NodeOf<'sum'>[];
  readonly stores: readonly Store[];
  /** Whether a tensor is computed in the kernel and not read from memory. */
  readonly isComputed: (tensor: Tensor) => boolean;
  readonly indexType: 'int' | 'long long';
  readonly storage: Storage;
}

/** Tensors that a kernel's stores write, each once. */
function targetsOf({ stores }: GroupWork): readonly Tensor[] {
  return [...new Set(stores.map(({ target }) => target))];
}

/** Largest number of blocks of a kernel that adds up columns: its partial sums stay small beside what it reads. */
const mostColumnBlocks = 528;

/** Blocks that a multiprocessor must hold at a time, for one to load while another computes: 128 registers a thread. */
const leastBlocks = 2;

/** Elements of each tensor that a thread holds in registers from phase to phase; longer rows are read again. */
const mostHeld = 40;

/** The stages of a group: its kernel, and one that joins the partial sums of columns. */
export function groupStages(work: GroupWork): readonly Stage[] {
  const layout = layoutOf(work);
  const isFlat = work.reductions.length + work.columns.length === 0 && !hasNarrow(work);
  const phases = phasesOf(work);
  const held =
    phases > 1 && layout.chunks * layout.vector <= mostHeld ? layout.chunks * layout.vector : undefined;
  const { space, isComputed, indexType, storage } = work;
  const { vector } = layout;
  const isExchanging = !isFlat && layout.lanes <= warp && layout.lanes * vector === space.length;
  const lanes = isExchanging ? layout.lanes : undefined;
  const writer = new RowWriter({ space, vector, held, lanes, indexType, storage, isComputed });
  return isFlat ? flatStages(work, writer, layout) : rowStages(work, writer, layout, phases);
}

/** Whether one kernel can do the work: no row needs a sum over another one. */
export function canFuse(work: GroupWork): boolean {
  try {
    const probe = probeOf(work, 1);
    for (const { value } of work.stores)
      if (isNarrow(value, work)) probe.expression.element(value, probe.narrow(value.shape));
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

/** How threads share the elements. */
interface Layout {
  /** Consecutive elements of a thread. */
  readonly vector: number;
  /** Threads of a row, and rows of a block. */
  readonly lanes: number;
  readonly slots: number;
  /** Threads of a block. */
  readonly block: number;
  /** Chunks of a row for each thread. */
  readonly chunks: number;
}

/** Threads of a warp, and chunks of a row of bf16 beyond which no warp sums it, but a block that fits: registers are few. */
const warp = 32;
const longestInWarp = 64;

/** Elements of bf16 that a thread takes together. */
const mostVector = 8;

/** Shared memory that a kernel may declare. */
const staticSharedBytes = 48 * 1024;

function layoutOf(work: GroupWork): Layout {
  const { length } = work.space;
  const vector = vectorOf(work);
  const all = Math.ceil(length / vector);
  const longest =
    work.reductions.length > 0 ? longestInWarp : work.columns.length > 0 ? threads : Number.POSITIVE_INFINITY;
  if (vector === mostVector && all > longest) {
    const chunks = Math.ceil(all / threads);
    const block = warp * Math.ceil(all / chunks / warp);
    return { vector, lanes: block, slots: 1, block, chunks };
  }
  const most = work.reductions.length === 0 ? threads : all > 512 ? threads : 32;
  const wanted = work.reductions.length === 0 ? Math.ceil(all / (8 / vector)) : all;
  const narrow = Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, wanted))));
  // Columns are summed in shared memory, a row for each slot: where that is too much, a block takes one row.
  const isTooMuch = work.columns.length > 0 && 4 * (threads / narrow) * length > staticSharedBytes;
  const lanes = isTooMuch ? threads : narrow;
  return { vector, lanes, slots: threads / lanes, block: threads, chunks: Math.ceil(all / lanes) };
}

/**
 * Elements that a thread takes together: 16 bytes, which is four of f32, and eight where something is narrower, unless rows
 * are odd or too short, or other elements of a row would be read one by one.
 */
function vectorOf(work: GroupWork): number {
  const { length, rows } = work.space;
  const isWide = (tensor: Tensor) => elementCount(tensor.shape) >= rows * length;
  const walked = [...readsWith(work, 1).map(({ tensor }) => tensor), ...targetsOf(work)].filter(isWide);
  const isNarrowed = walked.some((tensor) => ['bf16', 'f8e4m3'].includes(work.storage(tensor)));
  const most = isNarrowed ? [mostVector] : [];
  const fits = (vector: number) =>
    length % vector === 0 &&
    rows * length >= 32 * vector &&
    readsWith(work, vector).every(({ kind, isChunked }) => kind !== 'row' || isChunked);
  return [...most, 4, 2].find(fits) ?? 1;
}

/** How the work reads memory when threads take `vector` elements together. */
function readsWith(work: GroupWork, vector: number): readonly Read[] {
  return probeOf(work, vector).reads;
}

/** A writer that wrote what the work computes for each element. */
function probeOf(work: GroupWork, vector: number): RowWriter {
  const { space, isComputed, indexType, storage } = work;
  const probe = new RowWriter({ space, vector, held: undefined, indexType, storage, isComputed });
  for (const { value } of work.stores) if (!isNarrow(value, work)) probeElement(probe, value, work);
  for (const node of [...work.columns, ...work.reductions]) probeElement(probe, node.operands[0], work);
  return probe;
}

function probeElement(probe: RowWriter, value: Tensor, work: GroupWork): void {
  for (const node of work.reductions) probe.setRowValue(node as Node, 't');
  probe.expression.element(value, probe.home(value.shape));
}

function isNarrow({ shape }: Tensor, { space }: GroupWork): boolean {
  return space.length > 1 && elementCount(shape) === space.rows;
}

function hasNarrow(work: GroupWork): boolean {
  return work.stores.some(({ value }) => isNarrow(value, work));
}

/** In which walk over a row each tensor is known: after those that add up the sums it needs. */
function levels(work: GroupWork): (tensor: Tensor) => number {
  const known = new Map<Node, number>();
  const reductions = new Set<Node>(work.reductions as readonly Node[]);
  const level = (tensor: Tensor): number => {
    const { node } = tensor;
    const found = known.get(node);
    if (found !== undefined) return found;
    const inside = reductions.has(node) || work.isComputed(tensor);
    const most = inside ? Math.max(0, ...operandsOf(node).map(level)) : 0;
    const own = reductions.has(node) ? most + 1 : most;
    known.set(node, own);
    return own;
  };
  return level;
}

function phasesOf(work: GroupWork): number {
  const level = levels(work);
  return (
    1 +
    Math.max(
      0,
      ...work.stores.filter(({ value }) => !isNarrow(value, work)).map(({ value }) => level(value)),
      ...[...work.columns, ...work.reductions].map((node) => level(node.operands[0])),
    )
  );
}

/** What each walk over a row computes for its elements. */
function wantedOf(work: GroupWork, level: (tensor: Tensor) => number, phases: number): Tensor[][] {
  const stored = work.stores.flatMap(({ value }) => (isNarrow(value, work) ? [] : [value]));
  const wanted = [...stored, ...[...work.columns, ...work.reductions].map(({ operands: [x] }) => x)];
  return Array.from({ length: phases }, (_, phase) => wanted.filter((tensor) => level(tensor) === phase));
}

/** Statements that compute a value and write it. */
function storeValue(
  writer: RowWriter,
  storage: Storage,
  { value, target, axis, offset }: Store,
  number: number,
  output: number,
  vector: number,
  condition: string,
): { inner: string[]; before: string[]; after: string[] } {
  const home = writer.home(value.shape);
  const element = writer.expression.element(value, home);
  const isWhole = target === value;
  const index = isWhole ? home : indexInWhole(home, axis, offset);
  const first = isWhole ? 'i0' : writer.firstOfChunk(index, target.shape);
  if (vector > 1 && isVectorised(storage(target)) && first !== undefined) {
    return {
      before: [`float o${number}[${vector}];`],
      inner: [`o${number}[k] = ${element};`],
      after: [`${condition}store${vector}(y${output}, ${first}, o${number});`],
    };
  }
  const place = isWhole ? 'i' : writer.positionOf(index, target.shape);
  return { before: [], inner: [`${condition}put(y${output}, ${place}, ${element});`], after: [] };
}

/** A thread for each chunk of elements. */
function flatStages(work: GroupWork, writer: RowWriter, { vector }: Layout): readonly Stage[] {
  const { space, indexType, storage, stores } = work;
  const count = space.rows * space.length;
  const targets = targetsOf(work);
  const written = stores.map((store, index) =>
    storeValue(writer, storage, store, index, targets.indexOf(store.target), vector, ''),
  );
  const inner = written.flatMap((one) => one.inner);
  const body = [
    `const ${indexType} i0 = ((${indexType})blockIdx.x * ${threads} + threadIdx.x) * ${vector};`,
    `if (i0 >= ${count}) return;`,
    `const ${indexType} row = i0 / ${space.length}, c0 = i0 % ${space.length};`,
    ...writer.rowLines,
    ...writer.chunkLines,
    ...written.flatMap((one) => one.before),
    ...elementLoop(writer, vector, indexType, inner),
    ...written.flatMap((one) => one.after),
  ];
  const grid = Math.max(1, Math.ceil(count / vector / threads));
  return [kernelStage('fused', work, writer, targets, body, [grid, threads], new Map())];
}

/** The statements of each element of a chunk. */
export function elementLoop(
  writer: RowWriter,
  vector: number,
  indexType: string,
  inner: readonly string[],
): string[] {
  return [
    '#pragma unroll',
    `for (int k = 0; k < ${vector}; k++) {`,
    `const ${indexType} c = c0 + k, i = i0 + k;`,
    ...writer.elementLines,
    ...writer.expression.lines,
    ...inner,
    '}',
  ];
}

/** Some threads for each row, one walk over it after the other. */
function rowStages(work: GroupWork, writer: RowWriter, layout: Layout, phases: number): readonly Stage[] {
  const { space, indexType, storage, stores, columns, reductions } = work;
  const { vector, lanes, slots, block, chunks } = layout;
  const level = levels(work);
  const targets = targetsOf(work);
  const walks: string[] = [];
  const storedIn = new Map<number, number>();
  const held = chunks * vector;
  const kept = writer.isHeld ? keptValues({ ...work, level, wanted: wantedOf(work, level, phases) }) : [];
  const isRagged = space.rows % slots !== 0;
  const condition = isRagged ? 'if (live) ' : '';
  for (let phase = 0; phase < phases; phase++) {
    if (phase > 0) writer.nextPhase();
    const [inner, before, after, sums]: [string[], string[], string[], string[]] = [[], [], [], []];
    const own = reductions.flatMap((node, index) =>
      level(node.operands[0]) === phase ? [{ node, name: `t${index}` }] : [],
    );
    const keeping = (kept[phase] ?? []).map((node, index) => ({ node, name: `h${phase}_${index}` }));
    for (const { node, name } of keeping) {
      const value = resultOf(node);
      walks.push(`float ${name}[${held}];`);
      inner.push(
        `${name}[j * ${vector} + k] = ${writer.expression.element(value, writer.home(value.shape))};`,
      );
    }
    for (const { node, name } of own) {
      const [x] = node.operands;
      const isSum = node.op === 'sum';
      inner.push(
        `${name} = ${isSum ? 'plus' : 'larger'}(${name}, ${writer.expression.element(x, writer.home(x.shape))});`,
      );
      walks.push(`float ${name} = ${isSum ? '0.0f' : '-INF'};`);
      const of = isSum ? 'sum' : 'max';
      const ofBlock = `block_${of}(${name}${block === threads ? '' : `, ${block / warp}`})`;
      sums.push(`${name} = ${lanes > warp ? ofBlock : `lanes_${of}(${name}, ${lanes})`};`);
    }
    columns.forEach((node, index) => {
      const [x] = node.operands;
      if (level(x) !== phase) return;
      const value = writer.expression.element(x, writer.home(x.shape));
      inner.push(`${condition}a${index}[j * ${vector} + k] += ${value};`);
    });
    stores.forEach((store, number) => {
      if (isNarrow(store.value, work) || level(store.value) !== phase) return;
      const output = targets.indexOf(store.target);
      const parts = storeValue(writer, storage, store, number, output, vector, condition);
      inner.push(...parts.inner);
      before.push(...parts.before);
      after.push(...parts.after);
      storedIn.set(output, phase);
    });
    walks.push(
      ...(chunks <= mostHeld / vector ? ['#pragma unroll'] : []),
      `for (int j = 0; j < ${chunks}; j++) {`,
      `const ${indexType} c0 = (j * ${lanes} + lane) * ${vector}, i0 = row * ${space.length} + c0;`,
      ...(chunks * lanes * vector === space.length ? [] : [`if (c0 < ${space.length}) {`]),
      ...writer.chunkLines,
      ...before,
      ...elementLoop(writer, vector, indexType, inner),
      ...after,
      ...(chunks * lanes * vector === space.length ? [] : ['}']),
      '}',
      ...sums,
    );
    for (const { node, name } of own) writer.setRowValue(node as Node, name);
    for (const { node, name } of keeping) writer.keep(node, name);
  }
  const narrow = narrowStores(work, writer, condition);
  const blocks = Math.ceil(space.rows / slots);
  const most = Math.round((mostColumnBlocks * threads) / block);
  const grid = columns.length > 0 ? Math.min(blocks, most) : blocks;
  const partials = columns.map((node) =>
    grid === 1 ? resultOf(node as Node) : constant([0], [grid, space.length], 'f32'),
  );
  const outputs = [...targets, ...partials];
  const body = [
    `const int lane = threadIdx.x % ${lanes}, slot = threadIdx.x / ${lanes};`,
    ...(columns.length > 0 && slots > 1 ? [`__shared__ float shared[${slots * space.length}];`] : []),
    ...columns.map((_, index) => `float a${index}[${held}] = {};`),
    `for (${indexType} first = (${indexType})blockIdx.x * ${slots}; first < ${space.rows}; first += ${grid * slots}) {`,
    ...(isRagged
      ? [
          `const bool live = first + slot < ${space.rows};`,
          `const ${indexType} row = live ? first + slot : ${space.rows - 1};`,
        ]
      : [`const ${indexType} row = first + slot;`]),
    ...writer.rowLines,
    ...walks,
    ...narrow,
    '}',
    ...columns.flatMap((_, index) => columnSums(index, targets.length + index, layout, space)),
  ];
  const isKeeping = kept.some((nodes) => nodes.length > 0);
  const kernel = kernelStage('rows', work, writer, outputs, body, [grid, block], storedIn, isKeeping);
  return grid === 1 || columns.length === 0
    ? [kernel]
    : [kernel, joinColumns(partials, columns, grid, space.length)];
}

/** One value for each row, written by its first thread. */
function narrowStores(work: GroupWork, writer: RowWriter, condition: string): string[] {
  if (!hasNarrow(work)) return [];
  writer.nextPhase();
  const targets = targetsOf(work);
  const stores = work.stores.flatMap(({ value, target }) =>
    isNarrow(value, work)
      ? [
          `${condition}put(y${targets.indexOf(target)}, row, ${writer.expression.element(value, writer.narrow(value.shape))});`,
        ]
      : [],
  );
  return ['if (lane == 0) {', ...writer.expression.lines, ...stores, '}'];
}

/** The sums of a block's threads, one after the other in the order of its rows. */
function columnSums(
  column: number,
  output: number,
  { vector, lanes, slots, chunks }: Layout,
  { length }: RowSpace,
): string[] {
  const place = `(j * ${lanes} + lane) * ${vector}`;
  const each = (statement: string) =>
    `for (int j = 0; j < ${chunks}; j++) if (${place} < ${length}) ${eachOf(vector, statement)}`;
  if (slots === 1)
    return [
      '#pragma unroll',
      each(`y${output}[blockIdx.x * ${length}LL + ${place} + k] = a${column}[j * ${vector} + k];`),
    ];
  return [
    '__syncthreads();',
    '#pragma unroll',
    each(`shared[slot * ${length} + ${place} + k] = a${column}[j * ${vector} + k];`),
    '__syncthreads();',
    `for (int c = threadIdx.x; c < ${length}; c += ${threads}) {`,
    'float total = 0.0f;',
    `for (int s = 0; s < ${slots}; s++) total += shared[s * ${length} + c];`,
    `y${output}[blockIdx.x * ${length}LL + c] = total;`,
    '}',
  ];
}

/** Adds up the partial sums of blocks, always in the same order: eight threads for each column. */
function joinColumns(
  partials: readonly Tensor[],
  columns: readonly NodeOf<'sum'>[],
  parts: number,
  length: number,
): Stage {
  const [xs, ys] = [partials.map((_, i) => `x${i}`), columns.map((_, i) => `y${i}`)];
  const pick = (names: readonly string[]) =>
    names
      .slice(1)
      .reduce((chosen, name, i) => `blockIdx.y == ${i + 1} ? ${name} : (${chosen})`, at(names, 0));
  const kernel = namedKernel(
    'join_columns',
    `(${[...xs.map((x) => `const float* ${x}`), ...ys.map((y) => `float* ${y}`)].join(', ')}) {
  __shared__ float shared[8][32];
  const float* x = ${pick(xs)};
  float* y = ${pick(ys)};
  const int lane = threadIdx.x / 32, c = blockIdx.x * 32 + threadIdx.x % 32;
  float total = 0.0f;
  if (c < ${length}) for (int part = lane; part < ${parts}; part += 8) total += x[part * ${length}LL + c];
  shared[lane][threadIdx.x % 32] = total;
  __syncthreads();
  if (lane != 0 || c >= ${length}) return;
  for (int other = 1; other < 8; other++) total += shared[other][threadIdx.x % 32];
  y[c] = total;
}`,
    [Math.ceil(length / 32), columns.length, 1],
    [threads, 1, 1],
  );
  return {
    kind: 'kernel',
    kernel,
    inputs: [...partials],
    outputs: columns.map((node) => resultOf(node as Node)),
  };
}

function kernelStage(
  kind: string,
  work: GroupWork,
  writer: RowWriter,
  outputs: readonly Tensor[],
  body: readonly string[],
  [grid, block]: readonly [blocks: number, threads: number],
  storedIn: ReadonlyMap<number, number>,
  isKeeping = false,
): Stage {
  const { inputs, reads } = writer;
  const { storage } = work;
  const inPlace = targetsOf(work).flatMap((target, output) =>
    !work.stores.some(({ value }) => value === target) || isNarrow(target, work)
      ? []
      : inputs.flatMap((input, index): (readonly [number, number])[] =>
          storage(input) === storage(target) &&
          reads.every(
            (read) =>
              read.tensor !== input || (read.kind === 'home' && read.phase <= (storedIn.get(output) ?? 0)),
          )
            ? [[index, output]]
            : [],
        ),
  );
  const shared = new Set(inPlace.flatMap(([input, output]) => [`x${input}`, `y${output}`]));
  const pointer = (name: string) => `*${shared.has(name) ? '' : ' __restrict__'} ${name}`;
  const parameters = [
    ...inputs.map((input, i) => `const ${storageType(storage(input))}${pointer(`x${i}`)}`),
    ...outputs.map((output, i) => `${storageType(storage(output))}${pointer(`y${i}`)}`),
  ];
  // Values that are kept beside what is loaded next take more registers than one block more is worth.
  const blocks = (isKeeping ? Math.floor : Math.ceil)((leastBlocks * threads) / block);
  const kernel: Kernel = namedKernel(
    kind,
    `(${parameters.join(', ')}) {\n  ${body.join('\n  ')}\n}`,
    [grid, 1, 1],
    [block, 1, 1],
    0,
    `__launch_bounds__(${block}, ${blocks}) `,
  );
  return { kind: 'kernel', kernel: { ...kernel, inPlace }, inputs, outputs };
}
