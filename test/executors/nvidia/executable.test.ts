import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkInputs } from '../../../src/executors/executor.ts';
import type { Arena } from '../../../src/executors/nvidia/arena.ts';
import { bytesAt, NativeMemory } from '../../../src/executors/nvidia/bindings/native.ts';
import { NvidiaBuffer } from '../../../src/executors/nvidia/buffer.ts';
import type { Device } from '../../../src/executors/nvidia/device.ts';
import { NvidiaExecutable } from '../../../src/executors/nvidia/executable.ts';
import { fusedPartition } from '../../../src/executors/nvidia/fusion/partition.ts';
import { prepare } from '../../../src/executors/nvidia/fusion/prepare.ts';
import type { Kernel } from '../../../src/executors/nvidia/kernel.ts';
import type { KernelCache } from '../../../src/executors/nvidia/kernel-cache.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { PreparedValues } from '../../../src/executors/nvidia/prepared.ts';
import { at } from '../../../src/tensor/shape.ts';
import { trace } from '../../../src/tensor/trace.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';
import { kernelsOf, planStandIn } from './stand-in/stand-in-executor.ts';

/** A device whose memory is the host's; its kernels run when they are launched. */
class HostDevice {
  readonly blocks = new Map<bigint, NativeMemory>();
  readonly memory = {
    allocate: (bytes: number) => {
      const block = new NativeMemory(bytes + 512);
      const address = (block.address + 255n) & ~255n;
      this.blocks.set(address, block);
      return address;
    },
    release: (address: bigint) => {
      if (!this.blocks.delete(address)) throw new Error(`${address} was not allocated`);
    },
  };
  disposed = false;
  captures = 0;

  copy(target: bigint, source: bigint, bytes: number): void {
    bytesAt(target, bytes).set(bytesAt(source, bytes));
  }

  capture(queue: () => void) {
    this.captures++;
    return { launch: queue, dispose: () => undefined };
  }
}

const reason = missingCompiler();
const type = { shape: [4], dtype: 'f32' } as const;

describe.skipIf(reason !== undefined)(`executables${reason === undefined ? '' : `: ${reason}`}`, () => {
  // Sums go around: the second output is made where b was, the first where a was; c stays as it is.
  const { graph } = trace('step', (a, b, c) => [a.add(c), b.add(a).mul(c), c.sum()], type, type, type);
  const generator = { prepare, isNarrow: false, partition: fusedPartition };
  const plans = new Map(
    [[], [0], [0, 1], [1, 2], [0, 1, 2]].map((donate) => [donate, planStandIn(graph, generator, donate, [])]),
  );
  const weighted = [1, 2].map((scale) => {
    const traced = trace('weighted', (x, w) => [x.mul(w.sum()).mul(scale), w.mul(x)], type, type);
    return {
      graph: traced.graph,
      plan: planStandIn(traced.graph, generator, [], [], undefined, undefined, [1]),
    };
  });
  let compiled: CpuKernels;
  beforeAll(async () => {
    compiled = await CpuKernels.compile(
      prelude,
      [...plans.values(), ...weighted.map(({ plan }) => plan)].flatMap(kernelsOf),
    );
  }, 120_000);
  afterAll(() => compiled[Symbol.dispose]());

  function open(donate: readonly number[]) {
    const host = new HostDevice();
    const device = host as unknown as Device;
    const plan = [...plans].find(([donated]) => `${donated}` === `${donate}`);
    if (plan === undefined) throw new Error('there is no such plan');
    const { program } = plan[1];
    const executable = new NvidiaExecutable(graph, program, new Set(donate), new Map(), device);
    const working = host.memory.allocate(program.arenaBytes);
    const arena = { require: () => working } as unknown as Arena;
    const kernels = {
      bind: (kernel: Kernel, addresses: readonly bigint[]) => () => compiled.run(kernel, addresses),
    } as unknown as KernelCache;
    const upload = (value: number) => {
      const address = host.memory.allocate(16);
      bytesAt(address, 16).set(new Uint8Array(Float32Array.of(value, value, value, value).buffer));
      return new NvidiaBuffer(type, address, device);
    };
    const read = ({ address }: NvidiaBuffer) =>
      new DataView(bytesAt(address, 4).slice().buffer).getFloat32(0, true);
    const run = (inputs: readonly NvidiaBuffer[]) => {
      expect(executable.fits(inputs)).toBe(true);
      const addresses = executable.take(inputs);
      const binding = executable.bind(addresses, arena, { kernels, communicator: undefined });
      binding.run();
      return executable.takeOutputs(binding, addresses);
    };
    return { host, executable, upload, read, run };
  }

  it.each([...plans.keys()])(
    'give what the graph computes, run after run, donated inputs %j',
    (...donate) => {
      const { host, upload, read, run } = open(donate);
      let [a, b, c] = [upload(2), upload(3), upload(5)] as [NvidiaBuffer, NvidiaBuffer, NvidiaBuffer];
      let [x, y] = [2, 3];
      const before = host.blocks.size;
      for (let step = 0; step < 4; step++) {
        const [first, second, sum] = run([a, b, c]) as [NvidiaBuffer, NvidiaBuffer, NvidiaBuffer];
        [x, y] = [x + 5, (y + x) * 5];
        expect([first, second, sum].map(read)).toEqual([x, y, 20]);
        expect([a, b, c].map(({ disposed }) => disposed)).toEqual(
          [0, 1, 2].map((index) => donate.includes(index)),
        );
        for (const one of [a, b, sum]) one[Symbol.dispose]();
        if (donate.includes(2)) c = upload(5);
        [a, b] = [first, second];
      }
      // Other memory for what is donated binds the program anew; all else is copied to where it was recorded. With a alone
      // donated, the second output takes its memory.
      expect(host.captures).toBe(['', '0,1'].includes(`${donate}`) ? 1 : 0);
      // What moved has places of its own from then on; nothing else stays.
      expect(host.blocks.size - before).toBeLessThanOrEqual(3 - donate.length);
    },
  );

  it('take no buffer twice if it is donated, and leave it alone', () => {
    const { executable, upload, run } = open([0, 1]);
    const [a, b, c] = [upload(1), upload(1), upload(1)];
    for (const inputs of [
      [a, a, c],
      [a, b, a],
      [a, b, b],
    ]) {
      expect(executable.fits(inputs)).toBe(false);
      expect(() => checkInputs(executable, inputs)).toThrow('are one buffer');
    }
    expect(a.disposed || b.disposed || c.disposed).toBe(false);
    expect(run([a, b, c])).toHaveLength(3);
    const plain = open([]);
    const one = plain.upload(1);
    expect(plain.read(at(plain.run([one, one, one]), 1))).toBe(2);
  });

  it('compute what fixed inputs alone are for once, together, and anew of other buffers', () => {
    const host = new HostDevice();
    const device = host as unknown as Device;
    const launched: string[] = [];
    const kernels = {
      bind: (kernel: Kernel, addresses: readonly bigint[]) => () => {
        launched.push(kernel.name);
        compiled.run(kernel, addresses);
      },
    } as unknown as KernelCache;
    const prepared = new PreparedValues(device, kernels);
    const working = host.memory.allocate(1 << 16);
    const arena = { require: () => working } as unknown as Arena;
    const [one, two] = weighted.map(
      ({ graph: own, plan }) =>
        new NvidiaExecutable(own, plan.program, new Set(), new Map(), device, prepared),
    ) as [NvidiaExecutable, NvidiaExecutable];
    const upload = (value: number, address = host.memory.allocate(16)) => {
      bytesAt(address, 16).set(new Uint8Array(Float32Array.of(value, value, value, value).buffer));
      return new NvidiaBuffer(type, address, device);
    };
    const run = (executable: NvidiaExecutable, inputs: readonly NvidiaBuffer[]) => {
      const addresses = executable.take(inputs);
      executable.prepare(inputs);
      const binding = executable.bind(addresses, arena, { kernels, communicator: undefined });
      binding.run();
      return executable
        .takeOutputs(binding, addresses)
        .map(({ address }) => new DataView(bytesAt(address, 4).slice().buffer).getFloat32(0, true));
    };
    const sums = weighted[0]!.plan.program.prepared.map(({ kernel }) => kernel.name);
    expect(sums.length).toBeGreaterThan(0);
    const sumsMade = () => launched.filter((name) => sums.includes(name)).length / sums.length;
    const w = upload(3);
    expect([run(one, [upload(5), w]), run(one, [upload(7), w]), run(two, [upload(7), w])]).toEqual([
      [60, 15],
      [84, 21],
      [168, 21],
    ]);
    expect(sumsMade()).toBe(1);
    const other = upload(4, w.address);
    expect([run(two, [upload(7), other]), run(one, [upload(7), other])]).toEqual([
      [224, 28],
      [112, 28],
    ]);
    expect(sumsMade()).toBe(2);
    expect(run(one, [upload(7), upload(2)])).toEqual([56, 14]);
    one[Symbol.dispose]();
    expect(run(two, [upload(5), other])).toEqual([160, 20]);
    expect(sumsMade()).toBe(3);
  });

  it('take no buffer that is gone, or of another type or device', () => {
    const { executable, upload } = open([0]);
    const [a, b, c] = [upload(1), upload(1), upload(1)];
    const other = new NvidiaBuffer({ shape: [2, 2], dtype: 'f32' }, a.address, a.device);
    expect(executable.fits([a, b, other])).toBe(false);
    expect(executable.fits([a, b, open([0]).upload(1)])).toBe(false);
    expect(executable.fits([a, b])).toBe(false);
    c[Symbol.dispose]();
    expect(executable.fits([a, b, c])).toBe(false);
    expect(() => checkInputs(executable, [a, b, c])).toThrow('was disposed');
  });
});
