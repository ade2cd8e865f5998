import { at, sameShape, type TensorType } from '../../tensor/shape.ts';
import type { Graph } from '../../tensor/tensor.ts';
import type { DeviceBuffer, Executable } from '../executor.ts';
import type { Arena } from './arena.ts';
import { Binding, type Launchers, type StepTime } from './binding.ts';
import { NvidiaBuffer } from './buffer.ts';
import type { Device } from './device.ts';
import type { Location } from './donation.ts';
import type { PreparedValues, TakenValues } from './prepared.ts';
import { bytesOfType, isShared, type Program } from './program.ts';

/** Where an output of a run comes from. */
interface OutputSource {
  readonly output: number;
  readonly type: TensorType;
  readonly bytes: number;
  readonly location: Location;
  /** The donated input whose memory it has; undefined: memory of its own. */
  readonly input: number | undefined;
  /** Whether it has to be copied to its memory; otherwise it is made there. */
  readonly isCopied: boolean;
}

/**
 * A compiled graph, bound to addresses when it runs. A training step has thousands of inputs and outputs, so what a run does
 * for each of them is little: all that can be is decided here, once.
 */
export class NvidiaExecutable implements Executable {
  readonly graph: Graph;
  readonly donated: ReadonlySet<number>;
  readonly device: Device;
  private readonly program: Program;
  private readonly constants: ReadonlyMap<number, bigint>;
  private readonly inputTypes: readonly TensorType[];
  private readonly isDonated: readonly boolean[];
  private readonly kept: readonly number[];
  /** Inputs for which another buffer may come run after run, though they are not donated. */
  private readonly moving: readonly number[];
  private readonly sources: readonly OutputSource[];
  /** Donated inputs that no output takes the memory of. */
  private readonly released: readonly number[];
  private readonly isShared: boolean;
  /** Memory of inputs that came from different addresses in different runs: they are copied here. */
  private readonly staged = new Map<number, bigint>();
  private readonly preparedValues: PreparedValues | undefined;
  /** What was prepared, and the fixed inputs of which it was made. */
  private prepared: { readonly of: readonly NvidiaBuffer[]; readonly values: TakenValues } | undefined;
  private binding: Binding | undefined;
  private isDisposed = false;

  constructor(
    graph: Graph,
    program: Program,
    donated: ReadonlySet<number>,
    constants: ReadonlyMap<number, bigint>,
    device: Device,
    preparedValues?: PreparedValues,
  ) {
    this.preparedValues = preparedValues;
    this.graph = graph;
    this.program = program;
    this.donated = donated;
    this.constants = constants;
    this.device = device;
    this.inputTypes = graph.inputs.map(({ shape, dtype }) => ({ shape, dtype }));
    this.isDonated = graph.inputs.map((_, index) => donated.has(index));
    this.kept = graph.inputs.flatMap((_, index) => (donated.has(index) ? [] : [index]));
    this.moving = this.kept.filter((index) => !program.fixed.has(index));
    this.sources = sourcesOf(graph, program, this.inputTypes);
    const taken = new Set(this.sources.map(({ input }) => input));
    this.released = [...donated].filter((index) => !taken.has(index));
    this.isShared = isShared(program);
  }

  /** Whether inputs are what a run takes; if not, `checkInputs` says why. */
  fits(inputs: readonly DeviceBuffer[]): inputs is readonly NvidiaBuffer[] {
    const { inputTypes, device, isDonated } = this;
    if (inputs.length !== inputTypes.length) return false;
    const run = {};
    for (let index = 0; index < inputTypes.length; index++) {
      const found = inputs[index];
      if (!(found instanceof NvidiaBuffer) || found.disposed || found.device !== device) return false;
      const expected = at(inputTypes, index);
      if (found.dtype !== expected.dtype || !sameShape(found.shape, expected.shape)) return false;
      if (isDonated[index] !== true) continue;
      if (found.donatedTo === run) return false;
      found.donatedTo = run;
    }
    return this.kept.every((index) => (inputs[index] as NvidiaBuffer).donatedTo !== run);
  }

  /** The addresses of inputs; those that are donated are taken from their buffers. */
  take(inputs: readonly NvidiaBuffer[]): readonly bigint[] {
    const addresses = new Array<bigint>(inputs.length);
    for (let index = 0; index < inputs.length; index++) {
      const buffer = at(inputs, index);
      addresses[index] = buffer.address;
      if (this.isDonated[index] === true) buffer.surrender();
    }
    return addresses;
  }

  /** Has what is computed of fixed inputs alone made, if it was not made of these. */
  prepare(given: readonly NvidiaBuffer[]): void {
    const { program, preparedValues } = this;
    if (program.prepared.length === 0 || preparedValues === undefined) return;
    const of = [...program.fixed].map((index) => at(given, index));
    if (this.prepared?.of.every((buffer, index) => buffer === of[index])) return;
    this.binding?.dispose();
    this.binding = undefined;
    this.prepared?.values[Symbol.dispose]();
    this.prepared = undefined;
    this.prepared = { of, values: preparedValues.take(program, given) };
  }

  /**
   * The program on these inputs, after {@link prepare}. It stays bound to the addresses of the first run; an input that moves is copied to a
   * place of its own from then on, but a donated one is what the next outputs are made in, so the program follows it, and
   * so it does fixed ones.
   *
   * A program that is shared is never bound anew for what moves in this process alone, because NCCL wants every process
   * to record a graph when the others do: its inputs have places of their own from the first run on.
   */
  bind(addresses: readonly bigint[], arena: Arena, launchers: Launchers): Binding {
    const known = this.binding;
    for (const index of this.moving) {
      if (this.staged.has(index)) continue;
      const isMoved = known !== undefined && addresses[index] !== known.inputs[index];
      if (isMoved || this.isShared)
        this.staged.set(index, this.device.memory.allocate(this.inputBytes(index)));
    }
    const inputs = addresses.slice();
    for (const [index, address] of this.staged) inputs[index] = address;
    const memory = arena.require(this.program.arenaBytes);
    const isBound = known?.arena === memory && sameAddresses(inputs, known.inputs);
    const binding = isBound ? known : this.boundAnew(launchers, inputs, memory);
    for (const [index, target] of this.staged)
      this.device.copy(target, at(addresses, index), this.inputBytes(index));
    return binding;
  }

  /** Time of each step; undefined before the first run. */
  profile(): StepTime[] | undefined {
    return this.binding?.profile();
  }

  /** The launches of a run as a `CUgraph`, which the caller destroys; undefined before the first run. */
  record(): bigint | undefined {
    return this.binding?.record();
  }

  /** The outputs of the run that was queued last. @param addresses of the inputs; of the donated ones the memory is taken. */
  takeOutputs(binding: Binding, addresses: readonly bigint[]): NvidiaBuffer[] {
    const { device, sources } = this;
    const buffers = new Array<NvidiaBuffer>(sources.length);
    const own = this.allocateOutputs();
    for (let index = 0; index < sources.length; index++) {
      const { output, type, bytes, location, input, isCopied } = at(sources, index);
      const address = input === undefined ? at(own, index) : at(addresses, input);
      if (isCopied) device.copy(address, binding.addressOf(location), bytes);
      buffers[output] = new NvidiaBuffer(type, address, device);
    }
    for (const index of this.released) device.memory.release(at(addresses, index));
    return buffers;
  }

  [Symbol.dispose](): void {
    if (this.isDisposed || this.device.disposed) return;
    this.isDisposed = true;
    this.binding?.dispose();
    this.prepared?.values[Symbol.dispose]();
    for (const address of [...this.staged.values(), ...this.constants.values()])
      this.device.memory.release(address);
  }

  /** Memory for each output in memory of its own, which come first; none is taken when there is not enough for all. */
  private allocateOutputs(): bigint[] {
    const { memory } = this.device;
    const own: bigint[] = [];
    try {
      for (const { bytes, input } of this.sources) if (input === undefined) own.push(memory.allocate(bytes));
    } catch (error) {
      for (const address of own) memory.release(address);
      throw error;
    }
    return own;
  }

  private boundAnew(launchers: Launchers, inputs: readonly bigint[], arena: bigint): Binding {
    this.binding?.dispose();
    const { device, program } = this;
    const constants = new Map([...this.constants, ...(this.prepared?.values.addresses ?? [])]);
    this.binding = new Binding(device, launchers, program, { inputs, arena, constants });
    return this.binding;
  }

  private inputBytes(index: number): number {
    return bytesOfType(at(this.program.graph.inputs, index));
  }
}

/** Outputs in memory of their own first: what is copied to donated memory may overwrite what they are copied from. */
function sourcesOf(
  graph: Graph,
  { outputs, donations }: Program,
  inputTypes: readonly TensorType[],
): readonly OutputSource[] {
  const taken = new Set([...donations.values()].map(({ output }) => output));
  const source = (output: number, input: number | undefined, isCopied: boolean): OutputSource => {
    const { shape, dtype } = at(graph.outputs, output);
    const before = input === undefined ? undefined : at(inputTypes, input);
    // States are given back as they came: types that are one object are compared in no time.
    const isAlike = before !== undefined && before.dtype === dtype && sameShape(before.shape, shape);
    return { output, input, isCopied, type: isAlike ? before : { shape, dtype }, ...at(outputs, output) };
  };
  return [
    ...outputs.flatMap((_, output) => (taken.has(output) ? [] : [source(output, undefined, true)])),
    ...[...donations].map(([input, { output, how }]) => source(output, input, how === 'copy')),
  ];
}

function sameAddresses(a: readonly bigint[], b: readonly bigint[]): boolean {
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}
