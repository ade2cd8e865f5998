import { createHash } from 'node:crypto';
import type { DType } from '../../../tensor/dtype.ts';
import { at, elementCount, rowMajorStrides, type Shape } from '../../../tensor/shape.ts';
import type { Node, Tensor } from '../../../tensor/tensor.ts';
import {
  type Comparison,
  computeType,
  ExpressionWriter,
  moved,
  type Place,
  position,
} from '../plain/expression.ts';
import type { Storage } from '../storage.ts';

/** The elements that a fused kernel walks: `rows` of `length`, row-major. */
export interface RowSpace {
  readonly rows: number;
  readonly length: number;
}

/** How a kernel reads a tensor in memory. */
export interface Read {
  readonly tensor: Tensor;
  /** At the element it is at; at its row's value; elsewhere in its row; anywhere. */
  readonly kind: 'home' | 'narrow' | 'row' | 'other';
  /** C expression of the position; equal texts of names that do not depend on the kernel are equal positions. */
  readonly offset: string;
  readonly phase: number;
  /** Whether a thread reads its chunk at once. */
  readonly isChunked: boolean;
}

/** What a {@link RowWriter} knows of its kernel. */
export interface RowWriterSettings {
  readonly space: RowSpace;
  /** Consecutive elements that a thread takes together: 1, 2, 4 or 8. */
  readonly vector: number;
  /** Elements of a row that a thread holds from phase to phase; undefined when each phase reads again. */
  readonly held: number | undefined;
  /** Threads of a row when each has one chunk of it and they are of one warp. */
  readonly lanes?: number | undefined;
  readonly indexType: 'int' | 'long long';
  readonly storage: Storage;
  /** Whether a tensor is computed in the kernel, outside of memory. */
  readonly isComputed: (tensor: Tensor) => boolean;
  /** Tensors that the kernel reads already. */
  readonly inputs?: Tensor[];
}

/**
 * Writes the parts of a fused kernel: what runs once for a row, once for each chunk of `vector` elements, and for each
 * element. In C, `row` and `i` are the row and the element; `c` is the element's place in its row; `c0` and `i0` are
 * those of the chunk's first, `k` the place in the chunk, `j` the number of the thread's chunk.
 */
export class RowWriter implements Place {
  readonly inputs: Tensor[];
  readonly reads: Read[] = [];
  readonly rowLines: string[] = [];
  chunkLines: string[] = [];
  elementLines: string[] = [];
  expression: ExpressionWriter;
  private readonly settings: RowWriterSettings;
  private readonly rowNames = new Map<string, string>();
  private chunkNames = new Map<string, string>();
  private elementNames = new Set<string>();
  /** By an element's variable, that of its chunk's first. */
  private readonly consecutive = new Map([
    ['c', 'c0'],
    ['i', 'i0'],
  ]);
  private readonly registers = new Map<string, string>();
  private readonly sums = new Map<Node, string>();
  /** Arrays of a thread's elements, by what they hold. */
  private readonly kept = new Map<Node, string>();
  private phase = 0;

  constructor(settings: RowWriterSettings) {
    this.settings = settings;
    this.inputs = settings.inputs ?? [];
    this.expression = this.newExpression();
  }

  /** Starts another walk over the row. */
  nextPhase(): void {
    this.phase++;
    this.chunkLines = [];
    this.chunkNames = new Map();
    this.elementLines = [];
    this.elementNames = new Set();
    if (this.settings.held === undefined) this.registers.clear();
    this.expression = this.newExpression();
  }

  /** Names the variable that holds a row's sum or maximum from now on. */
  setRowValue(node: Node, name: string): void {
    this.sums.set(node, name);
  }

  /** Whether a thread keeps its elements from walk to walk. */
  get isHeld(): boolean {
    return this.settings.held !== undefined;
  }

  /** Names the array that holds a node's values at a thread's elements in the walks that follow. */
  keep(node: Node, name: string): void {
    this.kept.set(node, name);
  }

  /** Index of the element that a thread is at, under a shape of all elements. */
  home(shape: Shape): readonly string[] {
    const { length, rows } = this.settings.space;
    const last = shape.length - 1;
    if (shape[last] === length && rows > 1)
      return [...this.rowIndex(shape.slice(0, -1)), length === 1 ? '0' : 'c'];
    return this.wideIndex(shape);
  }

  /** Index of the row that a thread is at, under a shape of one element for each row. */
  narrow(shape: Shape): readonly string[] {
    return this.rowIndex(shape);
  }

  given(tensor: Tensor, index: readonly string[]): string | undefined {
    const array = this.kept.get(tensor.node);
    if (array !== undefined && isSame(index, this.home(tensor.shape)))
      return `${array}[j * ${this.settings.vector} + k]`;
    const name = this.sums.get(tensor.node);
    if (name === undefined) return undefined;
    if (!isSame(index, this.narrow(tensor.shape))) throw new RangeError('a row reads the sum of another');
    return name;
  }

  reindexed(index: readonly string[], from: Shape, to: Shape): readonly string[] | undefined {
    if (this.isWide(from) && isSame(index, this.home(from))) return this.home(to);
    if (this.isNarrow(from) && isSame(index, this.narrow(from))) return this.narrow(to);
    return undefined;
  }

  unravelled(index: readonly string[], from: Shape, to: Shape): readonly string[] | undefined {
    const first = this.firstOfChunk(index, from);
    const isAligned = at([1, ...to], to.length) % this.settings.vector === 0;
    const isRun = first !== undefined && isAligned;
    if (!isRun && !index.every((part) => this.isOfChunkAlone(part))) return undefined;
    const start = this.chunkNamed(isRun ? first : position(index, from));
    const strides = rowMajorStrides(to);
    return to.map((size, axis) => {
      if (size === 1) return '0';
      const name = this.chunkNamed(quotientOf(start, to, axis));
      return isRun && at(strides, axis) === 1 ? this.runFrom(name) : name;
    });
  }

  divided(part: string, by: number): readonly [quotient: string, remainder: string] | undefined {
    const first = by % this.settings.vector === 0 ? this.firstOf(part) : undefined;
    if (first === undefined && !this.isOfChunkAlone(part)) return undefined;
    const [quotient, remainder] = [
      this.chunkNamed(`${first ?? part} / ${by}`),
      this.chunkNamed(`${first ?? part} % ${by}`),
    ];
    return [quotient, first === undefined ? remainder : this.runFrom(remainder)];
  }

  exchanged(part: string, distance: number): ((value: string) => string) | undefined {
    const { lanes, vector } = this.settings;
    // Lanes are a power of two, so the other half of a row is in the lane that differs in its first bit.
    return lanes === undefined || part !== 'c' || 2 * distance !== lanes * vector || lanes === 1
      ? undefined
      : (value) => `__shfl_xor_sync(~0u, ${value}, ${lanes / 2})`;
  }

  named(expression: string): string | undefined {
    return this.isOfChunkAlone(expression) ? this.chunkNamed(expression) : undefined;
  }

  compared(part: string, comparison: Comparison, bound: number): string {
    const first = bound % this.settings.vector === 0 ? this.firstOf(part) : undefined;
    return `${first ?? part} ${comparison} ${bound}`;
  }

  loaded(tensor: Tensor, index: readonly string[], under: Shape, conditions: readonly string[]): string {
    const kind = this.kindOf(index, under);
    const offset = kind === 'home' ? 'i' : kind === 'narrow' ? 'row' : position(index, under);
    const input = this.inputOf(tensor);
    // What is at the place that the thread is at can always be read.
    const own = kind === 'home' || kind === 'narrow' ? [] : conditions;
    const isEarly = own.every((condition) => this.isOfChunkAlone(condition));
    const first = kind === 'home' ? 'i0' : this.firstOfChunk(index, under);
    const isChunked = isEarly && (first !== undefined || this.isOfChunkAlone(offset));
    this.reads.push({ tensor, kind, offset, phase: this.phase, isChunked });
    const value = guarded(own, `get(x${input}, ${offset})`);
    if ([offset, ...own].every((part) => this.isOfRow(part)))
      return this.ofRow(tensor, value, `n${input}.${offset}.${own.join()}`);
    if (!isEarly) return this.expression.declare(tensor.dtype, `get(x${input}, ${offset})`);
    if (first === undefined)
      return this.isOfChunkAlone(offset)
        ? this.chunkNamed(value, computeType(tensor.dtype))
        : this.expression.declare(tensor.dtype, `get(x${input}, ${offset})`);
    return this.register(tensor, input, first, own);
  }

  /** The chunk of a tensor in memory that begins at a position, loaded once. */
  private register(tensor: Tensor, input: number, first: string, conditions: readonly string[]): string {
    const { vector, indexType, held, storage } = this.settings;
    const keyOf = (those: readonly string[]) => `${input}.${first}.${those.join()}`;
    const known = this.registers.get(keyOf([])) ?? this.registers.get(keyOf(conditions));
    const name = known ?? `m${this.registers.size}_${this.phase}`;
    const start = held === undefined ? 0 : `j * ${vector}`;
    if (known === undefined) {
      this.registers.set(keyOf(conditions), name);
      const array = `${computeType(tensor.dtype)} ${name}[${held ?? vector}];`;
      if (held === undefined) this.chunkLines.push(array);
      else this.rowLines.push(array);
      const load =
        vector > 1 && isVectorised(storage(tensor))
          ? `load${vector}(${name} + ${start}, x${input}, ${first});`
          : eachOf(vector, `${name}[${start} + k] = get(x${input}, (${indexType})(${first}) + k);`);
      this.chunkLines.push(conditions.length === 0 ? load : `if (${conditions.join(' && ')}) ${load}`);
    }
    return `${name}[${start} + k]`;
  }

  /** Position of the first of a chunk when its elements follow each other in memory, aligned; else undefined. */
  firstOfChunk(index: readonly string[], under: Shape): string | undefined {
    const { vector } = this.settings;
    const last = index[index.length - 1];
    if (last === undefined || (under.length > 1 && vector > 1 && !this.hasAlignedRows(under)))
      return undefined;
    const first = this.firstOf(last);
    const leading = index.slice(0, -1);
    if (first === undefined || !leading.every((part) => this.isOfChunkAlone(part))) return undefined;
    return position([...leading, first], under);
  }

  /** The first of a chunk's parts of an index when they follow each other and it is a multiple of the vector. */
  private firstOf(part: string): string | undefined {
    const match = /^\(?(\w+)(?: ([+-]) (\d+)\))?$/.exec(part);
    const base = this.consecutive.get(match?.[1] ?? '');
    if (match === null || base === undefined || Number(match[3] ?? 0) % this.settings.vector !== 0)
      return undefined;
    return match[3] === undefined ? base : `(${base} ${match[2]} ${match[3]})`;
  }

  /** Whether an expression is the same for a whole chunk. */
  private isOfChunkAlone(expression: string): boolean {
    return namesIn(expression).every((name) => this.isOfChunk(name));
  }

  /** A variable of a chunk with a value, always of the same name for the same value. */
  private chunkNamed(value: string, type: string = this.settings.indexType): string {
    const hash = createHash('sha256').update(value).digest('hex').slice(0, 10);
    const name = `${isFixed(value) ? 'q' : 'g'}${hash}`;
    if (!this.chunkNames.has(name)) {
      this.chunkNames.set(name, name);
      this.chunkLines.push(`const ${type} ${name} = ${value};`);
    }
    return name;
  }

  /** The elements' variable of a run whose first is a chunk's. */
  private runFrom(first: string): string {
    this.consecutive.set(`${first}k`, first);
    return this.ofElement(`${first}k`, `${first} + k`);
  }

  /** Position of an element in memory. */
  positionOf(index: readonly string[], under: Shape): string {
    return position(index, under);
  }

  private hasAlignedRows(under: Shape): boolean {
    const strides = rowMajorStrides(under);
    return strides.every(
      (stride, axis) => axis === under.length - 1 || under[axis] === 1 || stride % this.settings.vector === 0,
    );
  }

  private kindOf(index: readonly string[], under: Shape): Read['kind'] {
    if (this.isWide(under)) {
      const home = this.home(under);
      if (isSame(index, home)) return 'home';
      const isRow =
        under[under.length - 1] === this.settings.space.length && at(home, home.length - 1) === 'c';
      if (isRow && isSame(index.slice(0, -1), home.slice(0, -1))) return 'row';
    }
    return this.isNarrow(under) && isSame(index, this.narrow(under)) ? 'narrow' : 'other';
  }

  private inputOf(tensor: Tensor): number {
    const known = this.inputs.indexOf(tensor);
    return known < 0 ? this.inputs.push(tensor) - 1 : known;
  }

  private ofRow(tensor: Tensor, value: string, key: string): string {
    const known = this.rowNames.get(key);
    if (known !== undefined) return known;
    const name = `n${this.rowNames.size}`;
    this.rowNames.set(key, name);
    this.rowNames.set(name, name);
    this.rowLines.push(`const ${computeType(tensor.dtype)} ${name} = ${value};`);
    return name;
  }

  /** Whether an expression is the same for a whole row. */
  private isOfRow(expression: string): boolean {
    return namesIn(expression).every((name) => name === 'row' || this.rowNames.get(name) === name);
  }

  private isOfChunk(name: string): boolean {
    return name === 'c0' || name === 'i0' || this.isOfRow(name) || this.chunkNames.get(name) === name;
  }

  private isWide(shape: Shape): boolean {
    return elementCount(shape) === this.settings.space.rows * this.settings.space.length;
  }

  private isNarrow(shape: Shape): boolean {
    return elementCount(shape) === this.settings.space.rows;
  }

  private rowIndex(shape: Shape): string[] {
    const sizes = shape.filter((size) => size !== 1);
    const names = sizes.map((_, axis) =>
      sizes.length === 1 ? 'row' : this.axisNamed(this.rowNames, this.rowLines, 'row', sizes, axis),
    );
    return spread(shape, names);
  }

  private wideIndex(shape: Shape): string[] {
    const { vector } = this.settings;
    const sizes = shape.filter((size) => size !== 1);
    const last = sizes.length - 1;
    const isAligned = at([...sizes, vector], Math.max(last, 0)) % vector === 0;
    const names = sizes.map((_, axis) => {
      if (sizes.length === 1) return 'i';
      // Where chunks cross the ends of rows, each element has an index of its own.
      if (!isAligned) return this.ofElement(`e${sizes.join('_')}_${axis}`, quotientOf('i', sizes, axis));
      const first = this.axisNamed(this.chunkNames, this.chunkLines, 'i0', sizes, axis);
      return axis < last ? first : this.runFrom(first);
    });
    return spread(shape, names);
  }

  private ofElement(name: string, value: string): string {
    if (!this.elementNames.has(name))
      this.elementLines.push(`const ${this.settings.indexType} ${name} = ${value};`);
    this.elementNames.add(name);
    return name;
  }

  private axisNamed(
    names: Map<string, string>,
    lines: string[],
    from: string,
    sizes: Shape,
    axis: number,
  ): string {
    const name = `${from === 'row' ? 'r' : 'w'}${sizes.join('_')}_${axis}`;
    if (!names.has(name)) {
      names.set(name, name);
      lines.push(`const ${this.settings.indexType} ${name} = ${quotientOf(from, sizes, axis)};`);
    }
    return name;
  }

  private newExpression(): ExpressionWriter {
    const { isComputed, indexType, storage } = this.settings;
    return new ExpressionWriter({ isInlined: isComputed, indexType, storage }, this);
  }
}

/** Index along one axis of the element at a position. */
function quotientOf(from: string, sizes: Shape, axis: number): string {
  const stride = at(rowMajorStrides(sizes), axis);
  const quotient = stride === 1 ? from : `${from} / ${stride}`;
  return axis === 0 ? quotient : `${quotient} % ${at(sizes, axis)}`;
}

/** Names for the axes of a shape that are not 1. */
function spread(shape: Shape, names: readonly string[]): string[] {
  let next = 0;
  return shape.map((size) => (size === 1 ? '0' : at(names, next++)));
}

/** Whether chunks of a tensor in memory are read and written at once. */
export function isVectorised(dtype: DType): boolean {
  return dtype === 'f32' || dtype === 'bf16' || dtype === 'f8e4m3';
}

/** A statement for each element of a chunk. */
export function eachOf(vector: number, statement: string): string {
  return `for (int k = 0; k < ${vector}; k++) ${statement}`;
}

/** Whether a position is written in names that mean the same in every kernel over the same rows. */
export function isFixed(offset: string): boolean {
  return namesIn(offset).every((name) => /^(row|[ci]0?|[rwe]\d\w*|q[0-9a-f]{10}k?)$/.test(name));
}

/** A value where it may be read, else nothing. */
function guarded(conditions: readonly string[], value: string): string {
  return conditions.length === 0 ? value : `${conditions.join(' && ')} ? ${value} : 0`;
}

function namesIn(expression: string): string[] {
  return expression.match(/[a-z_]\w*/g) ?? [];
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((part, axis) => part === b[axis]);
}

/** Index of an element in a tensor of which another is a part. */
export function indexInWhole(index: readonly string[], axis: number, offset: number): string[] {
  return index.map((part, a) => (a === axis ? moved(part, offset) : part));
}
