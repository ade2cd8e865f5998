import { at } from '../../tensor/shape.ts';
import type { Communicator } from './communicator.ts';
import type { Device, LaunchGraph } from './device.ts';
import type { Location } from './donation.ts';
import type { KernelCache, Launch } from './kernel-cache.ts';
import { bytesOfType, type Program, type Step, valuesInDonatedMemory } from './program.ts';

/** What launches the work of a program. */
export interface Launchers {
  readonly kernels: KernelCache;
  /** Of collectives; undefined where there is one process. */
  readonly communicator: Communicator | undefined;
}

/** Addresses that a program is bound to. */
export interface BoundAddresses {
  readonly inputs: readonly bigint[];
  readonly arena: bigint;
  /** Of constants, by value. */
  readonly constants: ReadonlyMap<number, bigint>;
}

/** How long a step of a program took. */
export interface StepTime {
  /** The step's own: kernel or operation, and types. */
  readonly name: string;
  readonly milliseconds: number;
  /** Of its operands and results, each once. */
  readonly bytes: number;
}

interface BoundStep {
  readonly name: string;
  readonly bytes: number;
  readonly launches: readonly Launch[];
}

/** Launches that a profile averages over. */
const profileRepeats = 5;

/**
 * A program on fixed addresses. Its first run launches step by step, which lets libraries set themselves up; the second
 * records the launches as a graph, and from then on a run is one launch.
 */
export class Binding {
  readonly inputs: readonly bigint[];
  readonly arena: bigint;
  private readonly device: Device;
  private readonly steps: readonly BoundStep[];
  private readonly resolve: (location: Location) => bigint;
  private runs = 0;
  private graph: LaunchGraph | undefined;

  constructor(device: Device, launchers: Launchers, program: Program, addresses: BoundAddresses) {
    this.device = device;
    this.inputs = addresses.inputs;
    this.arena = addresses.arena;
    const moved = valuesInDonatedMemory(program);
    this.resolve = (location) => {
      if (location.kind === 'input') return at(addresses.inputs, location.index);
      const { value } = location;
      const input = moved.get(value);
      if (input !== undefined) return at(addresses.inputs, input);
      return addresses.constants.get(value) ?? addresses.arena + BigInt(at(program.offsets, value));
    };
    this.steps = program.steps.map((step) => ({
      name: step.name,
      bytes: trafficOf(program, step),
      launches: this.bindStep(launchers, program, step),
    }));
  }

  /** Address of a tensor after a run. */
  addressOf(location: Location): bigint {
    return this.resolve(location);
  }

  /** Queues the program. */
  run(): void {
    this.runs++;
    if (this.runs === 1) {
      this.launchAll();
      return;
    }
    this.graph ??= this.device.capture(() => this.launchAll());
    this.graph.launch();
  }

  /** Milliseconds of GPU time of each step, in order, launched one by one. Repeats steps, so values are spoilt. Blocks. */
  profile(): StepTime[] {
    return this.steps.map(({ name, bytes, launches }) => ({
      name,
      bytes,
      milliseconds: this.device.time(() => {
        for (const launch of launches) launch();
      }, profileRepeats),
    }));
  }

  /** Frees the graph. */
  dispose(): void {
    this.graph?.dispose();
    this.graph = undefined;
  }

  private launchAll(): void {
    for (const { launches } of this.steps) for (const launch of launches) launch();
  }

  private bindStep(
    { kernels, communicator }: Launchers,
    program: Program,
    { work, reads, writes, scratch }: Step,
  ): Launch[] {
    const inputs = reads.map(this.resolve);
    const [outputs, own] = [writes, scratch].map((values) =>
      values.map((value) => this.resolve({ kind: 'value', value })),
    ) as [bigint[], bigint[]];
    if (work.kind === 'library') return [...work.call.bind({ inputs, outputs, scratch: own })];
    if (work.kind === 'collective') {
      if (communicator === undefined) throw new Error('there are no other processes');
      return [communicator.bind(work.nodes, inputs, outputs)];
    }
    const { kernel } = work;
    const clears = (kernel.zeroOutputs ?? []).map((index): Launch => {
      const [address, bytes] = [at(outputs, index), at(program.bytes, at(writes, index))];
      return () => this.device.clear(address, bytes);
    });
    return [...clears, kernels.bind(kernel, [...inputs, ...outputs])];
  }
}

function trafficOf({ graph, bytes }: Program, { reads, writes }: Step): number {
  const read = reads.map((place) =>
    place.kind === 'input' ? bytesOfType(at(graph.inputs, place.index)) : at(bytes, place.value),
  );
  const written = writes.map((value) => at(bytes, value));
  return [...read, ...written].reduce((sum, size) => sum + size, 0);
}
