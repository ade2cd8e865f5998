import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { libraryPathVariable } from '../../../src/executors/nvidia/bindings/discovery.ts';
import { NativeMemory } from '../../../src/executors/nvidia/bindings/native.ts';
import { type CollectiveNode, isCollective } from '../../../src/executors/nvidia/collectives.ts';
import { Communicator, newCommunicatorId } from '../../../src/executors/nvidia/communicator.ts';
import type { Device } from '../../../src/executors/nvidia/device.ts';
import { allGather, allReduce, reduceScatter } from '../../../src/tensor/functions.ts';
import { input } from '../../../src/tensor/graph.ts';
import type { Tensor } from '../../../src/tensor/tensor.ts';
import { missingCompiler } from './stand-in/compile.ts';

const reason = missingCompiler();
const x = input('x', { shape: [4, 2], dtype: 'f32' });

describe.skipIf(reason !== undefined)(
  `NCCL by its stand-in${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-nccl-'));
    const before = process.env[libraryPathVariable];
    beforeAll(() => {
      const source = join(import.meta.dirname, 'stand-in/nccl.c');
      const made = spawnSync('gcc', ['-shared', '-fPIC', '-o', join(folder, 'libnccl.so.2'), source]);
      expect(made.stderr.toString()).toBe('');
      process.env[libraryPathVariable] = folder;
    });
    afterAll(() => {
      if (before === undefined) delete process.env[libraryPathVariable];
      else process.env[libraryPathVariable] = before;
      rmSync(folder, { recursive: true });
    });
    const device = {
      createSideStream: () => 77n,
      createOrderingEvent: () => 1n,
      record: () => undefined,
      holdFor: () => undefined,
      driver: { cuStreamDestroy_v2: () => 0, cuEventDestroy_v2: () => 0 },
    } as unknown as Device;

    it('does several collectives as one, each on its own memory', () => {
      using communicator = new Communicator(device, { rank: 1, world: 2 }, newCommunicatorId());
      expect(process.env.NCCL_NVLS_ENABLE).toBe('0');
      const nodes = [allReduce(x), allGather(x, 2), reduceScatter(x, 2)].map(nodeOf);
      const given = floats(8, (i) => i);
      const results = [8, 16, 4].map((count) => floats(count, () => -1));
      const address = (memory: NativeMemory) => memory.address;
      using exchange = communicator.bind(nodes, [given, given, given].map(address), results.map(address));
      exchange.start();
      expect(results.map((memory) => valuesOf(memory))).toEqual([
        [0, 2, 4, 6, 8, 10, 12, 14],
        [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7],
        [8, 10, 12, 14],
      ]);
    });

    it("says what the library says when it refuses, and that a graph is another number of processes'", () => {
      expect(() => new Communicator(device, { rank: 0, world: 2 }, new Uint8Array(128))).toThrow(
        'ncclCommInitRank: invalid argument: not the name of a communicator',
      );
      using communicator = new Communicator(device, { rank: 0, world: 2 }, newCommunicatorId());
      expect(() => communicator.bind([nodeOf(allGather(x, 4))], [0n], [0n])).toThrow(
        'is of 4 processes, there are 2',
      );
    });
  },
);

function nodeOf({ node }: Tensor): CollectiveNode {
  if (!isCollective(node)) throw new Error(`${node.op} is no collective`);
  return node;
}

function floats(count: number, value: (index: number) => number): NativeMemory {
  const memory = new NativeMemory(4 * count);
  for (let i = 0; i < count; i++) memory.view.setFloat32(4 * i, value(i), true);
  return memory;
}

function valuesOf(memory: NativeMemory): number[] {
  return Array.from({ length: memory.bytes.length / 4 }, (_, i) => memory.float(4 * i));
}
