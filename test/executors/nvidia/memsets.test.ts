import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Binding, type Launchers } from '../../../src/executors/nvidia/binding.ts';
import {
  type GraphFunctions,
  graphPrototypes,
  kindOf,
  type Memset,
  nodesOf,
} from '../../../src/executors/nvidia/bindings/graphs.ts';
import {
  type Bound,
  bindLibrary,
  bytesAt,
  NativeMemory,
} from '../../../src/executors/nvidia/bindings/native.ts';
import type { Device } from '../../../src/executors/nvidia/device.ts';
import { fillKernel, replaceMemsets } from '../../../src/executors/nvidia/memsets.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import type { Program } from '../../../src/executors/nvidia/program.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';

/** What makes graphs and reads them beyond what the executor uses. */
const prototypes = {
  ...graphPrototypes,
  cuGraphCreate: ['int', 'pointer', 'uint'],
  cuGraphDestroy: ['int', 'pointer'],
  cuGraphAddEmptyNode: ['int', 'pointer', 'pointer', 'pointer', 'size'],
  cuGraphAddHostNode: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer'],
  cuGraphAddMemsetNode: ['int', 'pointer', 'pointer', 'pointer', 'size', 'pointer', 'pointer'],
  cuGraphAddDependencies_v2: ['int', 'pointer', 'pointer', 'pointer', 'pointer', 'size'],
  cuGraphGetEdges_v2: ['int', 'pointer', 'pointer', 'pointer', 'pointer', 'pointer'],
  cuGraphKernelNodeGetParams_v2: ['int', 'pointer', 'pointer'],
} as const;

/** The `CUfunction` of the kernel that fills. */
const fill = 7n;

type Filling = Omit<Memset, 'address'>;

const zero: Filling = { pitch: 0, value: 0, elementBytes: 4, width: 1, rows: 1 };

/** Memsets, and by how many bytes their address is off a multiple of 256. */
const memsets: readonly (readonly [filling: Filling, offset: number])[] = [
  [zero, 0],
  [{ ...zero, value: 0x89abcdef }, 4],
  [{ ...zero, value: 0x17f, elementBytes: 1, width: 5 }, 3],
  [{ ...zero, value: 0x71234, elementBytes: 2, width: 7 }, 2],
  [{ ...zero, elementBytes: 1, width: 513 }, 0],
  [{ ...zero, value: 0x89abcdef, width: 5001 }, 0],
  [{ ...zero, value: 0x89abcdef, width: 300 }, 4],
  [{ ...zero, value: 9, elementBytes: 1, width: 10, rows: 3, pitch: 16 }, 0],
  [{ ...zero, value: 0xabcd, elementBytes: 2, width: 33, rows: 5, pitch: 70 }, 0],
  [{ ...zero, value: 1, elementBytes: 1, rows: 70_000, pitch: 2 }, 0],
  [{ ...zero, width: 0 }, 0],
  [{ ...zero, rows: 0 }, 0],
];

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `kernels in the place of memsets, in graphs by their stand-in${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-graphs-'));
    let driver: GraphFunctions & Bound<typeof prototypes>;
    let compiled: CpuKernels;
    beforeAll(async () => {
      const library = join(folder, 'graphs.so');
      const source = join(import.meta.dirname, 'stand-in/graphs.c');
      const made = spawnSync('gcc', ['-Wall', '-shared', '-fPIC', '-o', library, source]);
      expect(made.stderr.toString()).toBe('');
      const check = (status: number, action: string) => expect(status, action).toBe(0);
      driver = { ...bindLibrary(library, prototypes), check };
      compiled = await CpuKernels.compile(prelude, [fillKernel], 1);
    }, 60_000);
    afterAll(() => {
      compiled[Symbol.dispose]();
      rmSync(folder, { recursive: true });
    });

    it.each(memsets)('write the same bytes: %j, %i bytes on', (memset, offset) => {
      const span = Math.max(memset.rows * memset.pitch, memset.width * memset.elementBytes) + 64;
      const memory = new NativeMemory(span + 512);
      const start = (memory.address + 255n) & ~255n;
      const bytes = bytesAt(start, span + offset).fill(0x55);
      const expected = bytes.slice();
      for (let row = 0; row < memset.rows; row++)
        for (let i = 0; i < memset.width; i++)
          for (let byte = 0; byte < memset.elementBytes; byte++)
            expected[offset + row * memset.pitch + i * memset.elementBytes + byte] =
              memset.value >>> (8 * byte);
      using graph = new HostGraph(driver);
      graph.addMemset({ ...memset, address: start + BigInt(offset) });
      replaceMemsets(driver, graph.handle, fill);
      const [node] = nodesOf(driver, graph.handle) as [bigint];
      const { handle, grid, block, parameters } = graph.kernel(node);
      expect(handle).toBe(fill);
      compiled.run({ ...fillKernel, grid, block }, parameters);
      expect(Buffer.compare(bytes, expected)).toBe(0);
    });

    it('stand between the nodes between which memsets stood, all of them', () => {
      using graph = new HostGraph(driver);
      const [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map((index) =>
        index === 1 || index === 4 ? graph.addHost() : graph.addMemset({ ...zero, address: BigInt(index) }),
      ) as [bigint, bigint, bigint, bigint, bigint, bigint];
      [a, b, c, d, e].forEach((node, index) => {
        graph.connect(node, [b, c, d, e, f][index]!);
      });
      const before = graph.edges();
      expect(before).toEqual([`0 ${b}`, `${b} 2`, '2 3', `3 ${e}`, `${e} 5`].sort());
      replaceMemsets(driver, graph.handle, fill);
      expect(graph.kinds()).toEqual({ host: 2, kernel: 4 });
      expect(graph.edges()).toEqual(before);
    });

    it('keep forks, joins, kinds of edges, and all nodes but memsets', () => {
      using graph = new HostGraph(driver);
      const [fork, beside, join, end] = [graph.addHost(), graph.addEmpty(), graph.addHost(), graph.addHost()];
      const [one, two, root] = [1n, 2n, 3n].map((address) => graph.addMemset({ ...zero, address })) as [
        bigint,
        bigint,
        bigint,
      ];
      for (const [from, to] of [
        [fork, one],
        [fork, beside],
        [fork, two],
        [one, two],
        [one, join],
        [two, join],
        [beside, join],
        [root, join],
        [one, end],
      ] as const)
        graph.connect(from, to);
      graph.connect(join, end, true);
      const before = graph.edges();
      expect(before.filter((edge) => edge.endsWith('programmatic'))).toHaveLength(1);
      replaceMemsets(driver, graph.handle, fill);
      expect(graph.edges()).toEqual(before);
      expect(graph.kinds()).toEqual({ host: 3, empty: 1, kernel: 3 });
      const nodes = nodesOf(driver, graph.handle);
      expect([fork, beside, join, end].every((node) => nodes.includes(node))).toBe(true);
      replaceMemsets(driver, graph.handle, fill);
      expect(graph.edges()).toEqual(before);
    });

    it('are there before a run launches what it recorded', () => {
      using graph = new HostGraph(driver);
      graph.addMemset({ ...zero, address: 1n });
      const launched: unknown[] = [];
      const device = {
        driver,
        capture: (_: () => void, isForked: boolean, edit: (graph: bigint) => void) => {
          edit(graph.handle);
          return { launch: () => launched.push(isForked, graph.kinds()) };
        },
      } as unknown as Device;
      const kernels = { functionOf: (kernel: unknown) => (kernel === fillKernel ? fill : 0n) };
      const program = { steps: [], donations: new Map(), outputs: [] } as unknown as Program;
      const launchers = { kernels, communicator: undefined } as unknown as Launchers;
      const binding = new Binding(device, launchers, program, {
        inputs: [],
        arena: 0n,
        constants: new Map(),
      });
      binding.run();
      expect(launched).toEqual([]);
      binding.run();
      expect(launched).toEqual([false, { kernel: 1 }]);
      const [node] = nodesOf(driver, graph.handle) as [bigint];
      expect(graph.kernel(node).handle).toBe(fill);
    });
  },
);

/** A graph of the stand-in. */
class HostGraph implements Disposable {
  readonly handle: bigint;
  private readonly driver: GraphFunctions & Bound<typeof prototypes>;
  private readonly out = new NativeMemory(8);

  constructor(driver: GraphFunctions & Bound<typeof prototypes>) {
    this.driver = driver;
    driver.check(driver.cuGraphCreate(this.out.bytes, 0), 'create');
    this.handle = this.out.pointer();
  }

  addMemset({ address, pitch, value, elementBytes, width, rows }: Memset): bigint {
    const raw = NativeMemory.pointers([address, BigInt(pitch), 0n, BigInt(width), BigInt(rows)]);
    raw.view.setUint32(16, value, true);
    raw.view.setUint32(20, elementBytes, true);
    const status = this.driver.cuGraphAddMemsetNode(this.out.bytes, this.handle, null, 0, raw.bytes, null);
    return this.added(status);
  }

  addHost(): bigint {
    return this.added(this.driver.cuGraphAddHostNode(this.out.bytes, this.handle, null, 0, null));
  }

  addEmpty(): bigint {
    return this.added(this.driver.cuGraphAddEmptyNode(this.out.bytes, this.handle, null, 0));
  }

  connect(from: bigint, to: bigint, isProgrammatic = false): void {
    const data = new NativeMemory(8);
    if (isProgrammatic) data.bytes.set([1, 0, 1]);
    const [source, target] = [from, to].map((node) => NativeMemory.pointers([node]).bytes) as [
      Uint8Array,
      Uint8Array,
    ];
    const status = this.driver.cuGraphAddDependencies_v2(this.handle, source, target, data.bytes, 1);
    this.driver.check(status, 'connect');
  }

  kinds(): Readonly<Record<string, number>> {
    const all = nodesOf(this.driver, this.handle).map((node) => kindOf(this.driver, node));
    return Object.fromEntries(
      [...new Set(all)].map((kind) => [kind, all.filter((one) => one === kind).length]),
    );
  }

  /** The dependencies by the names of their nodes: of memsets and what replaced them the address, of others the handle. */
  edges(): readonly string[] {
    const { driver, handle } = this;
    const [from, to, data] = [0, 1, 2].map(() => new NativeMemory(64 * 8)) as [
      NativeMemory,
      NativeMemory,
      NativeMemory,
    ];
    const status = driver.cuGraphGetEdges_v2(handle, from.bytes, to.bytes, data.bytes, this.out.bytes);
    driver.check(status, 'edges');
    return Array.from({ length: this.out.size() }, (_, index) => {
      const names = [from, to].map((list) => this.nameOf(list.pointer(8 * index))).join(' ');
      return data.pointer(8 * index) === 0n ? names : `${names} programmatic`;
    }).sort();
  }

  kernel(node: bigint) {
    const raw = new NativeMemory(72);
    this.driver.check(this.driver.cuGraphKernelNodeGetParams_v2(node, raw.bytes), 'kernel');
    const numbers = [2, 3, 4, 5, 6, 7].map((index) => raw.int(4 * index)) as [
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    const places = bytesAt(raw.pointer(40), 5 * 8);
    const read = (bytes: Uint8Array, index: number) =>
      new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8 * index, true);
    const parameters = [0, 1, 2, 3, 4].map((index) => read(bytesAt(read(places, index), 8), 0));
    const [gx, gy, gz, bx, by, bz] = numbers;
    return {
      handle: raw.pointer(),
      grid: [gx, gy, gz] as const,
      block: [bx, by, bz] as const,
      parameters,
    };
  }

  [Symbol.dispose](): void {
    this.driver.cuGraphDestroy(this.handle);
  }

  private nameOf(node: bigint): string {
    const kind = kindOf(this.driver, node);
    if (kind === 'kernel') return `${this.kernel(node).parameters[0]}`;
    if (kind !== 'memset') return `${node}`;
    const raw = new NativeMemory(40);
    this.driver.check(this.driver.cuGraphMemsetNodeGetParams(node, raw.bytes), 'memset');
    return `${raw.pointer()}`;
  }

  private added(status: number): bigint {
    this.driver.check(status, 'add');
    return this.out.pointer();
  }
}
