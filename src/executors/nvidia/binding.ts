import { at } from '../../tensor/shape.ts';
import type { CollectiveNode } from './collectives.ts';
import type { Communicator, Exchange } from './communicator.ts';
import type { Device, LaunchGraph } from './device.ts';
import type { Location } from './donation.ts';
import type { KernelCache, Launch } from './kernel-cache.ts';
import { fillKernel, replaceMemsets } from './memsets.ts';
import { bytesOfType, type Program, type Step, valuesInDonatedMemory } from './program.ts';

/** What launches the work of a program. */
export interface Launchers {
  /** In which `fillKernel` was prepared as well. */
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
  /** What a profile measures; that of collectives is with waiting for them. Nothing where only others are waited for. */
  readonly measured: readonly Launch[];
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
  private readonly kernels: KernelCache;
  private readonly steps: readonly BoundStep[];
  private readonly resolve: (location: Location) => bigint;
  private readonly exchanges = new Map<readonly CollectiveNode[], Exchange>();
  private runs = 0;
  private graph: LaunchGraph | undefined;

  constructor(device: Device, launchers: Launchers, program: Program, addresses: BoundAddresses) {
    this.device = device;
    this.kernels = launchers.kernels;
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
      ...this.bindStep(launchers, step),
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
    this.graph ??= this.capture();
    this.graph.launch();
  }

  /** Milliseconds of GPU time of each step, in order, launched one by one. Repeats steps, so values are spoilt. Blocks. */
  profile(): StepTime[] {
    const measured = this.steps.filter((step) => step.measured.length > 0);
    return measured.map(({ name, bytes, measured: launches }) => ({
      name,
      bytes,
      milliseconds: this.device.time(() => {
        for (const launch of launches) launch();
      }, profileRepeats),
    }));
  }

  /** The launches of a run as a `CUgraph`, as they are recorded, memsets among them. The caller destroys it. */
  record(): bigint {
    return this.device.recordGraph(() => this.launchAll());
  }

  /** Frees the graph and the events. */
  dispose(): void {
    this.graph?.dispose();
    this.graph = undefined;
    for (const exchange of this.exchanges.values()) exchange[Symbol.dispose]();
  }

  private capture(): LaunchGraph {
    const { device, kernels } = this;
    return device.capture(
      () => this.launchAll(),
      this.exchanges.size > 0,
      (graph) => replaceMemsets(device.driver, graph, kernels.functionOf(fillKernel)),
    );
  }

  private launchAll(): void {
    for (const { launches } of this.steps) for (const launch of launches) launch();
  }

  private bindStep(
    { kernels, communicator }: Launchers,
    { work, reads, writes, scratch }: Step,
  ): Pick<BoundStep, 'launches' | 'measured'> {
    const inputs = reads.map(this.resolve);
    const [outputs, own] = [writes, scratch].map((values) =>
      values.map((value) => this.resolve({ kind: 'value', value })),
    ) as [bigint[], bigint[]];
    const all = (launches: readonly Launch[]) => ({ launches, measured: launches });
    switch (work.kind) {
      case 'library':
        return all(work.call.bind({ inputs, outputs, scratch: own }));
      case 'start': {
        if (communicator === undefined) throw new Error('there are no other processes');
        const exchange = communicator.bind(work.nodes, inputs, outputs);
        this.exchanges.set(work.nodes, exchange);
        return { launches: [exchange.start], measured: [exchange.start, exchange.wait] };
      }
      case 'wait': {
        const exchange = this.exchanges.get(work.nodes);
        if (exchange === undefined) throw new Error('what is waited for was not started');
        return { launches: [exchange.wait], measured: [] };
      }
      case 'kernel':
        return all([kernels.bind(work.kernel, [...inputs, ...outputs])]);
    }
  }
}

function trafficOf({ graph, bytes }: Program, { reads, writes }: Step): number {
  const read = reads.map((place) =>
    place.kind === 'input' ? bytesOfType(at(graph.inputs, place.index)) : at(bytes, place.value),
  );
  const written = writes.map((value) => at(bytes, value));
  return [...read, ...written].reduce((sum, size) => sum + size, 0);
}
