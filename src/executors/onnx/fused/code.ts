import { at, elementCount, type Shape } from '../../../tensor/shape.ts';
import { type Node, type NodeOf, operandsOf, type Tensor } from '../../../tensor/tensor.ts';
import type { Group } from './groups.ts';
import { numberRegisters, type Opcode, type Register } from './registers.ts';
import { type Access, accessOf, type Extent, extents, type Space } from './space.ts';

/** A fused operation as its operator reads it: see `native/fused.c`. */
export interface FusedCode {
  /** What it reads, in order. */
  readonly inputs: readonly Tensor[];
  /** What it makes, in order. */
  readonly outputs: readonly Tensor[];
  /** Outputs and inputs that may lie in the same memory: nothing reads the input after the output is written. */
  readonly inPlace: readonly (readonly [output: number, input: number])[];
  readonly attributes: Readonly<
    Record<'space' | 'inputs' | 'registers' | 'code' | 'outputs', readonly number[]>
  > & { readonly constants: { readonly floats: readonly number[] } };
}

/** Longest row of which the registers of a tile fit the cache of a core. */
const longestRow = 2 ** 14;

/**
 * Writes the instructions of a group.
 * @param isNeeded whether anything outside the group reads a tensor.
 * @param anyLength whether sizes are known only when it runs: the group is elementwise over vectors.
 * @returns undefined where it cannot be one operation.
 */
export function writeCode(
  group: Group,
  isNeeded: (tensor: Tensor) => boolean,
  anyLength: boolean,
): FusedCode | undefined {
  const writer = new CodeWriter(group);
  for (const node of group.nodes) writer.write(node);
  return writer.finish(group.nodes.map((node) => at(node.results, 0)).filter(isNeeded), anyLength);
}

/** What an operation reads of a tensor: rows that begin `stride` elements after each other, the first at `offset`. */
interface Input {
  readonly tensor: Tensor;
  readonly access: Access;
  readonly stride: number;
  readonly offset: number;
}

class CodeWriter {
  private readonly space: Space;
  private readonly members: ReadonlySet<Node>;
  private readonly values = new Map<Tensor, Register>();
  private readonly constants = new Map<number, Register>();
  private readonly inputs = new Map<Register, Input>();
  private readonly reads = new Map<Tensor, Map<string, Register>>();
  /** What instructions make, by what they are. */
  private readonly made = new Map<string, Register>();
  private readonly names = new Map<Register, number>();

  constructor({ space, nodes }: Group) {
    this.space = space;
    this.members = new Set(nodes);
  }

  /** Writes a node of the group whose operands are written. */
  write(node: Node): void {
    this.values.set(at(node.results, 0), this.valueOf(node));
  }

  finish(outputs: readonly Tensor[], anyLength: boolean): FusedCode | undefined {
    const { rows, width } = this.space;
    const results: Register[] = [];
    for (const tensor of outputs) results.push(this.result(tensor, results));
    const code = needed([...this.made.values()], results);
    const read = new Set(code.flatMap(({ made }) => made?.operands ?? []));
    const inputs = [...this.inputs].filter(([register]) => read.has(register));
    const constants = [...this.constants].filter(([, register]) => read.has(register));
    const isFlat =
      [...code, ...read].every(({ extent }) => extent !== extents.column) &&
      inputs.every(([, input]) => input.access.modulus === 0 && !isStretch(input, width));
    const hasLength = inputs.some(([{ extent }]) => extent === extents.full);
    if (inputs.length === 0 || (!isFlat && width > longestRow)) return undefined;
    if (anyLength && !(isFlat && hasLength)) return undefined;
    const given = [...inputs.map(([register]) => register), ...constants.map(([, register]) => register)];
    return {
      inputs: inputs.map(([, { tensor }]) => tensor),
      outputs,
      inPlace: overwritable(
        inputs.map(([register, input]) =>
          input.access.modulus === 0 && !isStretch(input, width) ? register : undefined,
        ),
        code,
        results,
      ),
      attributes: {
        ...numberRegisters(given, code, results),
        space: isFlat ? [anyLength ? 0 : rows * width, 1] : [rows, width],
        inputs: inputs.flatMap(([, { access, stride, offset }]) => [
          access.extent,
          access.divisor,
          access.modulus,
          isFlat ? 1 : stride,
          offset,
        ]),
        constants: { floats: constants.map(([value]) => value) },
        outputs: outputs.flatMap(({ shape }) => (anyLength ? [-1] : [shape.length, ...shape])),
      },
    };
  }

  private valueOf(node: Node): Register {
    const { shape } = at(node.results, 0);
    const operands = operandsOf(node);
    const first = at(operands, 0);
    switch (node.op) {
      case 'reshape':
        return this.operand(first, first.shape);
      case 'broadcast':
        return this.operand(first, shape);
      case 'sum':
      case 'max':
        return this.reduced(node.op, this.operand(first, first.shape));
      case 'layerNorm': {
        const x = this.everyElement(this.operand(first, shape));
        const mean = this.meanOf(this.instruction('sum', extents.column, [x]));
        return this.overRoot(this.elementwise('sub', [x, mean]), node.attributes.epsilon);
      }
      case 'rmsNorm':
        return this.overRoot(this.everyElement(this.operand(first, shape)), node.attributes.epsilon);
      default:
        return this.elementwise(
          node.op as Opcode,
          operands.map((operand) => this.operand(operand, shape)),
        );
    }
  }

  /** The register of a tensor that is read by a node with the given result. */
  private operand(tensor: Tensor, result: Shape): Register {
    const { node } = tensor;
    if (this.members.has(node)) {
      const value = this.values.get(tensor);
      if (value === undefined) throw new TypeError(`${node.op} is read before it is written`);
      return value;
    }
    if (node.op === 'constant' && node.attributes.values.length === 1)
      return this.constant(at(node.attributes.values, 0));
    const access = accessOf(tensor.shape, result, this.space);
    if (access === undefined) throw new TypeError(`[${tensor.shape}] cannot be read by rows of [${result}]`);
    const known = this.reads.get(tensor) ?? new Map<string, Register>();
    this.reads.set(tensor, known);
    const key = [access.extent, access.divisor, access.modulus].join();
    const register = known.get(key) ?? { extent: access.extent };
    known.set(key, register);
    this.inputs.set(register, this.inputOf(tensor, access));
    return register;
  }

  /** A tensor as it is read. Stretches of rows are read where the rows are. */
  private inputOf(tensor: Tensor, access: Access): Input {
    const length = access.extent === extents.full ? this.space.width : 1;
    const { node } = tensor;
    if (access.extent === extents.full && node.op === 'slice' && isStretchOfRows(node)) {
      const [whole] = node.operands;
      return {
        tensor: whole,
        access,
        stride: at(whole.shape, whole.rank - 1),
        offset: at(node.attributes.starts, whole.rank - 1),
      };
    }
    return { tensor, access, stride: length, offset: 0 };
  }

  private constant(value: number): Register {
    const register = this.constants.get(value) ?? { extent: extents.scalar };
    this.constants.set(value, register);
    return register;
  }

  /** x / sqrt(mean(x^2) + epsilon). */
  private overRoot(x: Register, epsilon: number): Register {
    const square = this.meanOf(this.instruction('dot', extents.column, [x, x]));
    const root = this.elementwise('sqrt', [this.elementwise('add', [square, this.constant(epsilon)])]);
    return this.elementwise('div', [x, root]);
  }

  private meanOf(sum: Register): Register {
    return this.elementwise('mul', [sum, this.constant(1 / this.space.width)]);
  }

  /** The sum or the maximum of each row. A sum of products needs no products in memory. */
  private reduced(op: 'sum' | 'max', value: Register): Register {
    const x = this.everyElement(value);
    const factors = x.made?.op === 'mul' ? x.made.operands : [];
    return op === 'sum' && factors.length === 2 && factors.every(({ extent }) => extent === extents.full)
      ? this.instruction('dot', extents.column, factors)
      : this.instruction(op, extents.column, [x]);
  }

  private elementwise(op: Opcode, operands: readonly Register[]): Register {
    const [a, b] = operands;
    // A division for each row instead of one for each element.
    if (op === 'div' && a?.extent === extents.full && b?.extent === extents.column)
      return this.elementwise('mul', [a, this.elementwise('div', [this.constant(1), b])]);
    const joined = a && b && withProduct(op, a, b);
    if (joined !== undefined) return this.instruction(joined.op, extents.full, joined.operands);
    return this.instruction(op, Math.max(...operands.map(({ extent }) => extent)) as Extent, operands);
  }

  private everyElement(x: Register): Register {
    return x.extent === extents.full ? x : this.instruction('copy', extents.full, [x]);
  }

  /** What an instruction makes; the same instruction makes the same register. */
  private instruction(op: Opcode, extent: Extent, operands: readonly Register[]): Register {
    const key = [op, extent, ...operands.map((operand) => this.nameOf(operand))].join();
    const register = this.made.get(key) ?? { extent, made: { op, operands } };
    this.made.set(key, register);
    return register;
  }

  private nameOf(register: Register): number {
    const name = this.names.get(register) ?? this.names.size;
    this.names.set(register, name);
    return name;
  }

  /** The register of an output: made by an instruction, with the output's extent, and of no other output. */
  private result(tensor: Tensor, others: readonly Register[]): Register {
    const { rows, width } = this.space;
    const count = elementCount(tensor.shape);
    const value = this.values.get(tensor);
    if (value === undefined) throw new TypeError(`${tensor.node.op} was not written`);
    const extent = count === rows * width ? extents.full : count === rows ? extents.column : extents.scalar;
    if (value.extent > extent) throw new TypeError(`${tensor.node.op} has more values than its result`);
    if (value.made !== undefined && value.extent === extent && !others.includes(value)) return value;
    const copy: Register = { extent, made: { op: 'copy', operands: [value] } };
    this.made.set(`copy ${this.made.size}`, copy);
    return copy;
  }
}

/** For each result an input of its extent, if there is one that no later instruction reads; none for two results. */
function overwritable(
  inputs: readonly (Register | undefined)[],
  code: readonly Register[],
  results: readonly Register[],
): (readonly [output: number, input: number])[] {
  const lastRead = new Map<Register, number>();
  code.forEach(({ made }, index) => {
    for (const operand of made?.operands ?? []) lastRead.set(operand, index);
  });
  const taken = new Set<number>();
  return results.flatMap((result, output) => {
    const written = code.indexOf(result);
    const input = inputs.findIndex(
      (register, index) =>
        register?.extent === extents.full &&
        result.extent === extents.full &&
        !taken.has(index) &&
        (lastRead.get(register) ?? 0) <= written,
    );
    if (input < 0) return [];
    taken.add(input);
    return [[output, input] as const];
  });
}

/** Whether an input's rows are not next to each other. */
function isStretch({ access, stride }: Input, width: number): boolean {
  return stride !== (access.extent === extents.full ? width : 1);
}

/** Whether a slice has all rows, and of each a stretch. */
function isStretchOfRows({ operands: [x], attributes: { starts, ends } }: NodeOf<'slice'>): boolean {
  return x.shape.every((size, axis) => axis === x.rank - 1 || (starts[axis] === 0 && ends[axis] === size));
}

/** A sum or difference of which one side is a product, in one instruction. */
function withProduct(op: Opcode, a: Register, b: Register): Required<Register>['made'] | undefined {
  const [ofA, ofB] = [fullProduct(a), fullProduct(b)];
  if (op === 'add' && ofB !== undefined) return { op: 'multiplyAdd', operands: [...ofB, a] };
  if (op === 'add' && ofA !== undefined) return { op: 'multiplyAdd', operands: [...ofA, b] };
  if (op === 'sub' && ofB !== undefined) return { op: 'subtractProduct', operands: [...ofB, a] };
  if (op === 'sub' && ofA !== undefined) return { op: 'multiplySubtract', operands: [...ofA, b] };
  return undefined;
}

/** Factors of a product of which at least the first has every element. */
function fullProduct({ made }: Register): readonly Register[] | undefined {
  if (made?.op !== 'mul') return undefined;
  const sorted = [...made.operands].sort((a, b) => b.extent - a.extent);
  return sorted[0]?.extent === extents.full ? sorted : undefined;
}

/** Of registers that instructions make, in order, those that the results need. */
function needed(made: readonly Register[], results: readonly Register[]): Register[] {
  const wanted = new Set(results);
  for (const register of [...made].reverse())
    if (wanted.has(register)) for (const operand of register.made?.operands ?? []) wanted.add(operand);
  return made.filter((register) => wanted.has(register));
}
