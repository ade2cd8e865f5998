import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openOnnxExecutor } from '../../src/executors/onnx/open-node.ts';
import { parameterCount } from '../../src/nn/parameters.ts';
import { entryOf, openSafetensors, writeSafetensors } from '../../src/storage/safetensors.ts';
import type { HostTensor } from '../../src/tensor/host-tensor.ts';
import { fromNamed, Memorise, type MemoriseOptions, named, overfitting, specsOf } from './memorise.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-memorise-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('training on the CPU', () => {
  it('learns 64 random sequences by heart, and resumes bit for bit', { timeout: 600_000 }, async () => {
    const options = overfitting;
    expect(parameterCount(specsOf(options)) / 1e6).toBeCloseTo(4.87, 1);
    const path = join(folder, 'middle.safetensors');
    const losses: number[] = [];
    {
      await using executor = openOnnxExecutor();
      await using training = await Memorise.start(executor, options);
      for (let step = 1; step <= 300; step++) {
        losses.push(await training.step(step));
        if (step === 150)
          await writeSafetensors(
            path,
            named(await training.save()).map(([name, value]) => entryOf(name, value)),
          );
      }
    }
    expect(losses[0]! / losses.at(-1)!).toBeGreaterThan(100);

    await using file = await openSafetensors(path);
    const values = new Map<string, HostTensor>();
    for (const name of file.tensors.keys()) values.set(name, await file.read(name));
    await using executor = openOnnxExecutor();
    await using resumed = await Memorise.start(executor, options, fromNamed(options, values));
    const rest: number[] = [];
    for (let step = 151; step <= 300; step++) rest.push(await resumed.step(step));
    expect(rest).toEqual(losses.slice(150));
  });

  it('holds no more memory after 500 steps than after 100', { timeout: 120_000 }, async () => {
    const options: MemoriseOptions = {
      width: 32,
      layers: 2,
      headSize: 16,
      sequences: 4,
      tokens: 8,
      schedule: { rate: 1e-3 },
    };
    await using executor = openOnnxExecutor();
    await using training = await Memorise.start(executor, options);
    const resident: number[] = [];
    const arrays: number[] = [];
    for (let step = 1; step <= 500; step++) {
      await training.step(step);
      if (step % 100 === 0) {
        const { rss, arrayBuffers } = process.memoryUsage();
        resident.push(rss / 2 ** 20);
        arrays.push(arrayBuffers / 2 ** 20);
      }
    }
    // The model's whole state is 0.6 MB: a leak of a single buffer a step would add tens of MB.
    expect(resident.at(-1)! - resident[0]!, `RSS in MiB: ${resident}`).toBeLessThan(24);
    expect(arrays.at(-1)! - arrays[0]!, `array buffers in MiB: ${arrays}`).toBeLessThan(4);
  });
});
