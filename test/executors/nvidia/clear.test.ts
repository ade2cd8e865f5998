import { expect, it } from 'vitest';
import { bytesAt, NativeMemory } from '../../../src/executors/nvidia/bindings/native.ts';
import { clearKernel } from '../../../src/executors/nvidia/plain/clear.ts';
import { prelude } from '../../../src/executors/nvidia/plain/prelude.ts';
import { at } from '../../../src/tensor/shape.ts';
import { CpuKernels, missingCompiler } from './stand-in/compile.ts';

const reason = missingCompiler();

it.skipIf(reason !== undefined)(
  'zeros fill pieces of any size, and nothing beyond',
  async () => {
    const sizes = [5, 0, 16, 100_004, 32 << 10, (64 << 10) + 3];
    const kernel = clearKernel(sizes);
    using compiled = await CpuKernels.compile(prelude, [kernel]);
    const blocks = sizes.map((size) => new NativeMemory(size + 512));
    for (const { bytes } of blocks) bytes.fill(7);
    const addresses = blocks.map(({ address }) => (address + 255n) & ~255n);
    compiled.run(kernel, addresses);
    sizes.forEach((size, index) => {
      const address = at(addresses, index);
      expect(bytesAt(address, size).every((value) => value === 0)).toBe(true);
      expect([...bytesAt(address + BigInt(size), 32)]).toEqual(new Array(32).fill(7));
    });
  },
  60_000,
);
