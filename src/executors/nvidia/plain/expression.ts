import type { DType } from '../../../tensor/dtype.ts';
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from '../../../tensor/float16.ts';
import { at, rowMajorStrides, type Shape } from '../../../tensor/shape.ts';
import { type Node, resultsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Op } from '../../../tensor/vocabulary.ts';
import type { Storage } from '../storage.ts';

/** C type of a dtype in memory. */
export function storageType(dtype: DType): string {
  const types: Partial<Record<DType, string>> = {
    f32: 'float',
    f16: 'f16',
    bf16: 'bf16',
    i32: 'int',
    bool: 'unsigned char',
    f8e4m3: 'f8e4m3',
  };
  const type = types[dtype];
  if (type === undefined) throw new Error(`kernels compute no ${dtype}`);
  return type;
}

/** C type in which a dtype is computed. */
export function computeType(dtype: DType): 'int' | 'float' {
  return dtype === 'i32' || dtype === 'bool' ? 'int' : 'float';
}

/** Formulas of operations that take elements at one index. Operands are C expressions. */
const formulas: { readonly [K in Op]?: (...x: string[]) => string } = {
  neg: (x) => `-${x}`,
  abs: (x) => `fabsf(${x})`,
  exp: (x) => `exponential(${x})`,
  log: (x) => `logf(${x})`,
  sqrt: (x) => `root(${x})`,
  sin: (x) => `sinf(${x})`,
  cos: (x) => `cosf(${x})`,
  tanh: (x) => `tanhf(${x})`,
  sigmoid: (x) => `sigmoid(${x})`,
  // (1 + tanh y) / 2 is the sigmoid of 2 y, which its gradient needs too.
  gelu: (x) => `${x} * sigmoid(${x} * (${x} * ${x} * 0.0713548163f + 1.5957691216f))`,
  silu: (x) => `${x} * sigmoid(${x})`,
  add: (a, b) => `${a} + ${b}`,
  sub: (a, b) => `${a} - ${b}`,
  mul: (a, b) => `${a} * ${b}`,
  div: (a, b) => `quotient(${a}, ${b})`,
  maximum: (a, b) => `larger(${a}, ${b})`,
  minimum: (a, b) => `smaller(${a}, ${b})`,
  equal: (a, b) => `(int)(${a} == ${b})`,
  less: (a, b) => `(int)(${a} < ${b})`,
  where: (condition, a, b) => `${condition} ? ${a} : ${b}`,
};

/** Operations that only say which element of their operand an element is. */
export function isIndexOperation({ op }: Node): boolean {
  return indexOperations.includes(op);
}

const indexOperations: readonly Op[] = ['broadcast', 'transpose', 'slice', 'reshape'];
const pointwise = new Set<string>([
  ...Object.keys(formulas),
  ...indexOperations,
  ...(['cast', 'pad', 'concat', 'rotary'] satisfies Op[]),
]);

/** Operations whose elements can be computed where they are needed, from operands that can too. */
export function isPointwise({ op }: Node): boolean {
  return pointwise.has(op);
}

/** What kernels of one graph have in common. */
export interface KernelContext {
  /** Whether a tensor is computed inside the kernels that use it. */
  readonly isInlined: (tensor: Tensor) => boolean;
  /** How tensors lie in memory. */
  readonly storage: Storage;
  /** C type of indices: 32 bits unless some tensor is larger. */
  readonly indexType: 'int' | 'long long';
}

/** Where the elements of a kernel that computes more than one tensor are, besides in expressions. */
export interface Place {
  /** A variable that holds an element, such as the sum of a row. */
  readonly given: (tensor: Tensor, index: readonly string[]) => string | undefined;
  /** The index of the same element under another shape, where it is known without arithmetic. */
  readonly reindexed: (index: readonly string[], from: Shape, to: Shape) => readonly string[] | undefined;
  /** The index under another shape of the element at an index, where its parts can be named. */
  readonly unravelled: (index: readonly string[], from: Shape, to: Shape) => readonly string[] | undefined;
  /** Quotient and remainder of a part of an index, where they can be named. */
  readonly divided: (part: string, by: number) => readonly [quotient: string, remainder: string] | undefined;
  /** A name for an expression of parts of indices, where it can be named. */
  readonly named: (expression: string) => string | undefined;
  /** The variable of the element `distance` before or after, in another thread, where threads can exchange their elements. */
  readonly exchanged: (part: string, distance: number) => ((value: string) => string) | undefined;
  /** The condition that a part of an index is at least, or below, a bound, as early as it is known. */
  readonly compared: (part: string, comparison: Comparison, bound: number) => string;
  /**
   * The value of a tensor in memory, indexed as if it had shape `under`.
   * @param conditions those under which it may be read.
   */
  readonly loaded: (
    tensor: Tensor,
    index: readonly string[],
    under: Shape,
    conditions: readonly string[],
  ) => string;
}

/** How a part of an index is compared with a bound. */
export type Comparison = '>=' | '<';

/** Writes the body of a kernel: expressions for elements of tensors, at given indices. */
export class ExpressionWriter {
  readonly lines: string[] = [];
  /** Tensors read from memory, in the order of the kernel's parameters. */
  readonly inputs: Tensor[] = [];
  /** Inputs that are also read elsewhere than at `home`. */
  readonly scattered = new Set<number>();
  private readonly context: KernelContext;
  private readonly place: Place | undefined;
  private conditions: readonly string[] = [];
  private home: { readonly index: readonly string[]; readonly shape: Shape } | undefined;
  private next = 0;
  /** Variables by the element that they hold. */
  private known = new Map<string, string>();

  constructor(context: KernelContext, place?: Place) {
    this.context = context;
    this.place = place;
  }

  /** Index variables of the element that the kernel writes, whose position in memory is `i`. */
  unravelHome(shape: Shape): readonly string[] {
    const index = this.unravel('i', shape);
    this.home = { index, shape };
    return index;
  }

  /** A C expression of an element. */
  element(tensor: Tensor, index: readonly string[]): string {
    const { node } = tensor;
    if (node.op === 'constant' && node.attributes.values.length === 1)
      return literal(at(node.attributes.values, 0), tensor.dtype);
    const key = `${node.id}.${tensor.index}[${index.join()}]`;
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const given = this.place?.given(tensor, index);
    if (given !== undefined) return given;
    const value = this.context.isInlined(tensor) ? this.computed(node, index) : this.load(tensor, index);
    this.known.set(key, value);
    return value;
  }

  /** The value of a tensor in memory. */
  load(tensor: Tensor, index: readonly string[]): string {
    const loaded = this.place?.loaded(tensor, index, tensor.shape, this.conditions);
    if (loaded !== undefined) return loaded;
    const isHome =
      this.home !== undefined &&
      index.length === this.home.index.length &&
      index.every(
        (part, axis) => part === this.home?.index[axis] && tensor.shape[axis] === this.home?.shape[axis],
      );
    return this.declare(tensor.dtype, this.read(tensor, isHome ? 'i' : position(index, tensor.shape)));
  }

  /** The C expression that reads a tensor in memory. */
  read(tensor: Tensor, offset: string): string {
    const known = this.inputs.indexOf(tensor);
    const input = known < 0 ? this.inputs.push(tensor) - 1 : known;
    if (offset !== 'i') this.scattered.add(input);
    return `get(x${input}, ${offset})`;
  }

  /** A new variable. */
  declare(dtype: DType, value: string): string {
    const name = `v${this.next++}`;
    this.lines.push(`const ${computeType(dtype)} ${name} = ${value};`);
    return name;
  }

  /** Index variables for a position in a shape. */
  unravel(from: string, shape: Shape): string[] {
    const strides = rowMajorStrides(shape);
    return shape.map((size, axis) => {
      if (size === 1) return '0';
      const name = `u${this.next++}`;
      const stride = Math.max(1, at(strides, axis));
      const quotient = stride === 1 ? from : `${from} / ${stride}`;
      this.lines.push(
        `const ${this.context.indexType} ${name} = ${axis === 0 ? quotient : `(${quotient}) % ${Math.max(1, size)}`};`,
      );
      return name;
    });
  }

  /** The result of a node computed here. */
  computed(node: Node, index: readonly string[]): string {
    const dtype = at(node.results, 0).dtype;
    switch (node.op) {
      case 'cast':
        return this.cast(node.operands[0], dtype, index);
      case 'broadcast':
        return this.element(node.operands[0], broadcastIndex(index, node.operands[0].shape));
      case 'transpose': {
        const { permutation } = node.attributes;
        return this.element(
          node.operands[0],
          permutation.map((_, axis) => at(index, permutation.indexOf(axis))),
        );
      }
      case 'slice': {
        const { starts } = node.attributes;
        return this.element(
          node.operands[0],
          index.map((part, axis) => moved(part, at(starts, axis))),
        );
      }
      case 'reshape':
        return this.reshaped(node.operands[0], index, node.attributes.shape);
      case 'rotary':
        return this.rotary(node.operands, node.attributes.interleaved, index);
      case 'gather': {
        const [table, indices] = node.operands;
        const row = this.element(indices, index.slice(0, indices.rank));
        return this.element(table, [row, ...index.slice(indices.rank)]);
      }
      case 'pad': {
        const [x] = node.operands;
        const inner = index.map((part, axis) => moved(part, -at(node.attributes.before, axis)));
        const { before, after } = node.attributes;
        const conditions = inner.flatMap((part, axis) => [
          ...(at(before, axis) > 0 ? [this.compared(part, '>=', 0)] : []),
          ...(at(after, axis) > 0 ? [this.compared(part, '<', at(x.shape, axis))] : []),
        ]);
        const result = this.variable(dtype, '0');
        this.block(conditions, () => `${result} = ${this.element(x, inner)};`);
        return result;
      }
      case 'concat':
        return this.joined(node.operands, node.attributes.axis, index);
      default: {
        const formula = formulas[node.op];
        if (formula === undefined) throw new Error(`no kernel computes ${node.op}`);
        const operands = (node.operands as readonly Tensor[]).map((operand) =>
          this.element(operand, broadcastIndex(index, operand.shape)),
        );
        const value = formula(...operands);
        return this.declare(dtype, dtype === 'f16' || dtype === 'bf16' ? `round_${dtype}(${value})` : value);
      }
    }
  }

  private cast(x: Tensor, dtype: DType, index: readonly string[]): string {
    const value = this.element(x, index);
    if (dtype === 'bool') return this.declare(dtype, `(int)(${value} != 0)`);
    if (dtype === 'i32') return this.declare(dtype, `(int)${value}`);
    return this.declare(dtype, dtype === 'f32' ? `(float)${value}` : `round_${dtype}((float)${value})`);
  }

  private reshaped(x: Tensor, index: readonly string[], shape: Shape): string {
    const to = this.place?.reindexed(index, shape, x.shape);
    if (to !== undefined) return this.element(x, to);
    const offset = position(index, shape);
    if (!this.context.isInlined(x) && !(x.node.op === 'constant' && x.node.attributes.values.length === 1))
      return (
        this.place?.loaded(x, index, shape, this.conditions) ?? this.declare(x.dtype, this.read(x, offset))
      );
    // Axes that both shapes begin with keep their index; only what is behind them is counted anew.
    let same = 0;
    while (same < Math.min(x.rank, shape.length) && x.shape[same] === shape[same]) same++;
    const named = this.place?.unravelled(index.slice(same), shape.slice(same), x.shape.slice(same));
    if (named !== undefined) return this.element(x, [...index.slice(0, same), ...named]);
    const name = `u${this.next++}`;
    const inner = position(index.slice(same), shape.slice(same));
    this.lines.push(`const ${this.context.indexType} ${name} = ${inner};`);
    return this.element(x, [...index.slice(0, same), ...this.unravel(name, x.shape.slice(same))]);
  }

  private rotary(
    [x, cos, sin]: readonly [Tensor, Tensor, Tensor],
    interleaved: boolean,
    index: readonly string[],
  ): string {
    const [b, s, h, d] = index as [string, string, string, string];
    const half = at(x.shape, 3) / 2;
    const isAlone = interleaved || this.conditions.length > 0;
    const exchange = isAlone ? undefined : this.place?.exchanged(d, half);
    if (exchange !== undefined) {
      const own = this.element(x, index);
      const other = this.declare(x.dtype, exchange(own));
      const pair = this.place?.divided(d, half)?.[1] ?? `(${d} % ${half})`;
      const angle = [at(cos.shape, 0) === 1 ? '0' : b, s, pair];
      const [c, z] = [this.element(cos, angle), this.element(sin, angle)];
      const turned = `(${this.compared(d, '<', half)}) ? -${other} : ${other}`;
      return this.declare(x.dtype, `${own} * ${c} + (${turned}) * ${z}`);
    }
    const pair = interleaved ? `(${d} / 2)` : (this.place?.divided(d, half)?.[1] ?? `(${d} % ${half})`);
    const [first, second] = interleaved ? [`(2 * ${pair})`, `(2 * ${pair} + 1)`] : [pair, moved(pair, half)];
    const [p, q] = [this.element(x, [b, s, h, first]), this.element(x, [b, s, h, second])];
    const angle = [at(cos.shape, 0) === 1 ? '0' : b, s, pair];
    const [c, z] = [this.element(cos, angle), this.element(sin, angle)];
    const isFirst = interleaved ? `${d} % 2 == 0` : this.compared(d, '<', half);
    return this.declare(x.dtype, `(${isFirst}) ? ${p} * ${c} - ${q} * ${z} : ${p} * ${z} + ${q} * ${c}`);
  }

  private joined(operands: readonly Tensor[], axis: number, index: readonly string[]): string {
    const part = at(index, axis);
    const unfolded = this.unfolded(operands, axis, index);
    if (unfolded !== undefined) return unfolded;
    const result = this.variable(at(operands, 0).dtype, '0');
    let start = 0;
    for (const operand of operands) {
      const [from, to] = [start, start + at(operand.shape, axis)];
      const inner = index.map((other, a) => (a === axis ? moved(part, -from) : other));
      const conditions = [this.compared(part, '>=', from), this.compared(part, '<', to)];
      this.block(conditions, () => `${result} = ${this.element(operand, inner)};`);
      start = to;
    }
    return result;
  }

  /** An element of joined windows of one tensor: the window's number moves the index, and no branch is taken. */
  private unfolded(operands: readonly Tensor[], axis: number, index: readonly string[]): string | undefined {
    const windows = windowsOf(operands, axis);
    if (windows === undefined || !operands.every((operand) => this.context.isInlined(operand)))
      return undefined;
    const [window, within] = this.place?.divided(at(index, axis), at(at(operands, 0).shape, axis)) ?? [];
    if (window === undefined || within === undefined) return undefined;
    const { source, starts, along, step } = windows;
    const inner = index.map((part, a) => {
      const own = a === axis ? within : moved(part, at(starts, a));
      return a === along ? this.place?.named(`${own} + ${window} * ${step}`) : own;
    });
    const isNamed = (part: string | undefined): part is string => part !== undefined;
    return inner.every(isNamed) ? this.element(source, inner) : undefined;
  }

  private variable(dtype: DType, value: string): string {
    const name = `v${this.next++}`;
    this.lines.push(`${computeType(dtype)} ${name} = ${value};`);
    return name;
  }

  private compared(part: string, comparison: Comparison, bound: number): string {
    return this.place?.compared(part, comparison, bound) ?? `${part} ${comparison} ${bound}`;
  }

  /** Statements that run on conditions; what they declare is not known outside. */
  private block(conditions: readonly string[], last: () => string): void {
    const outside = { known: this.known, conditions: this.conditions };
    this.known = new Map(outside.known);
    this.conditions = [...outside.conditions, ...conditions];
    this.lines.push(`if (${conditions.join(' && ') || 'true'}) {`);
    const line = last();
    this.lines.push(line, '}');
    this.known = outside.known;
    this.conditions = outside.conditions;
  }
}

interface Windows {
  readonly source: Tensor;
  readonly starts: readonly number[];
  /** The axis along which each window begins `step` later than the one before. */
  readonly along: number;
  readonly step: number;
}

/** Tensors as windows of one: slices of it, of one shape, that follow each other at equal steps along an axis. */
function windowsOf(operands: readonly Tensor[], axis: number): Windows | undefined {
  const slices = operands.flatMap(({ node }) => (node.op === 'slice' ? [node] : []));
  const [first, second] = slices;
  if (first === undefined || second === undefined || slices.length !== operands.length) return undefined;
  const [source] = first.operands;
  const { starts } = first.attributes;
  const along = starts.findIndex((start, a) => start !== second.attributes.starts[a]);
  if (along < 0 || along === axis) return undefined;
  const step = at(second.attributes.starts, along) - at(starts, along);
  const fits = slices.every(
    ({ operands: [x], attributes, results }, number) =>
      x.node === source.node &&
      x.index === source.index &&
      at(results, 0).shape.every((size, a) => size === at(operands, 0).shape[a]) &&
      attributes.starts.every((start, a) => start === at(starts, a) + (a === along ? number * step : 0)),
  );
  return fits ? { source, starts, along, step } : undefined;
}

/** An index variable and a number. */
export function moved(part: string, by: number): string {
  if (by === 0) return part;
  return `(${part} ${by < 0 ? '-' : '+'} ${Math.abs(by)})`;
}

/** Index into an operand that is broadcast. */
export function broadcastIndex(index: readonly string[], shape: Shape): string[] {
  return shape.map((size, axis) => (size === 1 ? '0' : at(index, axis + index.length - shape.length)));
}

/** Position of an index in memory. */
export function position(index: readonly string[], shape: Shape): string {
  const strides = rowMajorStrides(shape);
  const terms = index.flatMap((part, axis) =>
    part === '0' ? [] : [at(strides, axis) === 1 ? part : `${part} * ${at(strides, axis)}`],
  );
  return terms.length === 0 ? '0' : terms.join(' + ');
}

const rounding: { readonly [D in DType]?: (value: number) => number } = {
  f16: (value) => at(f16ToF32(f32ToF16(Float32Array.of(value))), 0),
  bf16: (value) => at(bf16ToF32(f32ToBf16(Float32Array.of(value))), 0),
};

/** A number in C, rounded to its dtype. */
export function literal(value: number, dtype: DType): string {
  if (dtype === 'i32' || dtype === 'bool') return `(${Math.trunc(value)})`;
  if (Number.isNaN(value)) return '(0.0f * INF)';
  if (!Number.isFinite(value)) return value > 0 ? 'INF' : '(-INF)';
  const rounded = rounding[dtype]?.(value) ?? Math.fround(value);
  if (!Number.isFinite(rounded)) return rounded > 0 ? 'INF' : '(-INF)';
  const digits = Object.is(rounded, -0) ? '-0.0' : rounded.toPrecision(9);
  return `(${digits.includes('.') || digits.includes('e') ? digits : `${digits}.0`}f)`;
}

/** The only result of a node. */
export function resultOf(node: Node): Tensor {
  return at(resultsOf(node), 0);
}
