import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { libraryPathVariable } from '../../../src/executors/nvidia/bindings/discovery.ts';
import { NativeMemory } from '../../../src/executors/nvidia/bindings/native.ts';
import type { Device } from '../../../src/executors/nvidia/device.ts';
import { cacheVariable } from '../../../src/executors/nvidia/disk-cache.ts';
import { type Gemm, GemmLibrary } from '../../../src/executors/nvidia/library/gemm.ts';
import { bytesPerElement, type DType } from '../../../src/tensor/dtype.ts';
import { bytesOf, fromFloat32, type HostTensor, toFloat32, zeros } from '../../../src/tensor/host-tensor.ts';
import { inputValues } from '../comparison.ts';
import { missingCompiler } from './stand-in/compile.ts';
import { HostLibraries } from './stand-in/host-libraries.ts';

const plain: Gemm = {
  m: 5,
  n: 8,
  k: 4,
  transposeA: false,
  transposeB: true,
  dtype: 'bf16',
  result: 'bf16',
  batch: 1,
  strideA: 0,
  strideB: 0,
  alignment: 16,
};

const gemms: readonly Gemm[] = [
  plain,
  { ...plain, dtype: 'f32', result: 'f32', transposeA: true, transposeB: false },
  { ...plain, result: 'f32', batch: 3, strideA: 20, strideB: 32 },
  { ...plain, n: 16, k: 32, dtype: 'f8e4m3' },
  { ...plain, n: 32, k: 16, dtype: 'f8e4m3', result: 'f32' },
  { ...plain, epilogue: 'bias' },
  { ...plain, n: 3, epilogue: 'bias', result: 'f32' },
  { ...plain, epilogue: 'biasGelu' },
  { ...plain, epilogue: 'biasGeluKeepingSum' },
  { ...plain, epilogue: 'biasGeluKeepingSum', dtype: 'f32', result: 'f32' },
];

const reason = missingCompiler();

describe.skipIf(reason !== undefined)(
  `cuBLASLt by its stand-in${reason === undefined ? '' : `: ${reason}`}`,
  () => {
    const folder = mkdtempSync(join(tmpdir(), 'zoetrope-cublaslt-'));
    const changed = { [libraryPathVariable]: folder, [cacheVariable]: folder };
    const before = Object.keys(changed).map((name) => [name, process.env[name]] as const);
    /** What is timed next, in milliseconds. */
    const times: number[] = [];
    let library: GemmLibrary;
    beforeAll(() => {
      const source = join(import.meta.dirname, 'stand-in/cublaslt.c');
      const options = ['-O2', '-shared', '-fPIC', '-o', join(folder, 'libcublasLt.so.13'), source, '-lm'];
      const made = spawnSync('gcc', options);
      expect(made.stderr.toString()).toBe('');
      Object.assign(process.env, changed);
      library = new GemmLibrary(hostDevice(times), 'bf16');
    });
    afterAll(() => {
      library.dispose();
      for (const [name, value] of before)
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      rmSync(folder, { recursive: true });
    });

    it.each(gemms.map((gemm) => ({ name: JSON.stringify(gemm), gemm })))(
      'multiplies as told: $name',
      ({ gemm }) => {
        const [expected, found] = [new HostLibraries().convolution.gemm, library].map((one) => {
          const memory = operands(gemm, 'same');
          one.plan(gemm).bind(...memory.addresses)();
          return memory.made().map(toFloat32);
        });
        found!.forEach((values, result) => {
          values.forEach((value, i) => {
            expect(value).toBeCloseTo(expected![result]![i]!, gemm.result === 'f32' ? 5 : 1);
          });
        });
      },
    );

    it('gives each product of one shape its own bias', () => {
      const gemm: Gemm = { ...plain, epilogue: 'biasGeluKeepingSum' };
      const alone = ['a', 'b'].map((name) => {
        const memory = operands(gemm, name);
        library.plan(gemm).bind(...memory.addresses)();
        return memory.made();
      });
      const together = ['a', 'b'].map((name) => operands(gemm, name));
      const launches = together.map(({ addresses }) => library.plan(gemm).bind(...addresses));
      for (const launch of launches) launch();
      expect(together.map(({ made }) => made())).toEqual(alone);
      expect(alone[0]).not.toEqual(alone[1]);
    });

    it('has no gain from an epilogue without an algorithm', () => {
      const refused: Gemm = { ...plain, n: 7, epilogue: 'biasGelu' };
      expect(() => library.plan(refused)).toThrow(/AlgoGetHeuristic.*not supported/);
      expect(library.isGain(refused)).toBe(false);
      const odd: Gemm = { ...plain, n: 24, k: 32, dtype: 'f8e4m3' };
      expect(() => library.plan(odd)).toThrow(/AlgoGetHeuristic.*not supported/);
      expect(() => library.plan({ ...odd, n: 32, transposeB: false })).toThrow(/not supported/);
      expect(library.isGain({ ...plain, n: 12, epilogue: 'biasGeluKeepingSum' })).toBe(false);
      expect(library.isGain(plain)).toBe(false);
      for (const { epilogue, ...bare } of gemms)
        if (epilogue) expect(library.isGain({ ...bare, epilogue })).toBe(true);
    });

    it('has a gain from an epilogue that takes no longer than the product and a copy of its result', () => {
      const large: Gemm = { ...plain, m: 64, n: 512, k: 512, epilogue: 'biasGelu' };
      const six = (best: number) => [best + 1, best, best + 2, best + 1, best + 3, best + 1];
      times.push(...six(5), ...six(4), 1.5);
      expect(library.isGain(large)).toBe(true);
      times.push(...six(6), ...six(4), 1.5);
      expect(library.isGain({ ...large, m: 65 })).toBe(false);
      expect(times).toEqual([]);
      // Known from now on, and to those that come later.
      for (const one of [library, new GemmLibrary(hostDevice(times), 'bf16')]) {
        expect(one.isGain(large)).toBe(true);
        expect(one.isGain({ ...large, m: 65 })).toBe(false);
        expect(one.plan(large).milliseconds).toBe(5);
      }
      // What is damaged is found anew: the algorithms of both, and a copy.
      for (const file of readdirSync(join(folder, 'products')))
        writeFileSync(join(folder, 'products', file), 'short');
      times.push(...six(6), ...six(4), 1.5);
      expect(new GemmLibrary(hostDevice(times), 'bf16').isGain(large)).toBe(false);
      expect(times).toEqual([]);
    });

    it('times a product once for a GPU, a precision and an epilogue, and keeps that on disk', () => {
      const large: Gemm = { ...plain, m: 128, n: 512, k: 512 };
      const opened = (precision: 'bf16' | 'tf32' = 'bf16') => new GemmLibrary(hostDevice(times), precision);
      times.push(9, 8, 3, 8, 8, 8);
      expect(opened().plan(large).milliseconds).toBe(3);
      expect(opened().plan(large).milliseconds).toBe(3);
      expect(() => opened().plan({ ...large, epilogue: 'bias' })).toThrow('no algorithm of cuBLASLt runs');
      times.push(6, 6, 2, 6, 6, 6);
      expect(opened('tf32').plan(large).milliseconds).toBe(2);
      // What is damaged is found anew.
      const files = join(folder, 'products');
      for (const file of readdirSync(files)) writeFileSync(join(files, file), 'short');
      times.push(9, 8, 7, 8, 8, 8);
      expect(opened().plan(large).milliseconds).toBe(7);
      expect(times).toEqual([]);
    });
  },
);

/** A device on the host's memory whose clock is told what it measures. */
function hostDevice(times: number[]): Device {
  const blocks = new Map<bigint, NativeMemory>();
  const memory = {
    allocate: (bytes: number) => {
      const block = new NativeMemory(bytes);
      blocks.set(block.address, block);
      return block.address;
    },
    release: (address: bigint) => blocks.delete(address),
  };
  const time = () => {
    const next = times.shift();
    if (next === undefined) throw new Error('nothing was to be timed');
    return next;
  };
  return { stream: 77n, memory, clear: () => undefined, copy: () => undefined, time } as unknown as Device;
}

/** Random operands of a product, and memory for what it makes. */
function operands({ m, n, k, batch, dtype, result, epilogue }: Gemm, name: string) {
  const keep: NativeMemory[] = [];
  const place = (bytes: Uint8Array) => {
    const memory = new NativeMemory(bytes.length);
    memory.bytes.set(bytes);
    keep.push(memory);
    return memory;
  };
  const random = (size: number, type: DType, what: string) => {
    const values = inputValues({ shape: [size], dtype: 'f32', source: 'normal' }, `${name} ${what}`);
    return place(bytesOf(fromFloat32(type as 'f32', [size], toFloat32(values)))).address;
  };
  const [y, sum] = [m * n * batch, epilogue === 'biasGeluKeepingSum' ? m * n : 0].map((size) =>
    place(new Uint8Array(size * bytesPerElement(result))),
  ) as [NativeMemory, NativeMemory];
  const addresses = [
    random(batch * m * k, dtype, 'a'),
    random(batch * k * n, dtype, 'b'),
    y.address,
    { bias: random(n, result, 'bias'), sum: sum.address },
  ] as const;
  const made = (): HostTensor[] =>
    [y, ...(epilogue === 'biasGeluKeepingSum' ? [sum] : [])].map(({ bytes }) => {
      const tensor = zeros(result, [bytes.length / bytesPerElement(result)]);
      bytesOf(tensor).set(bytes);
      return tensor;
    });
  return { addresses, made, keep };
}
