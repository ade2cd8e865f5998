import { describe, expect, it } from 'vitest';
import { candidates, reportLibraries } from '../../../src/executors/nvidia/bindings/discovery.ts';
import { type Location, planDonations, type StepAccess } from '../../../src/executors/nvidia/donation.ts';
import { planMatmul } from '../../../src/executors/nvidia/library/matmul.ts';
import { type Lifetime, planMemory } from '../../../src/executors/nvidia/memory-plan.ts';
import { keyFromSeed, randomInts } from '../../../src/random/philox.ts';
import { matmul } from '../../../src/tensor/functions.ts';
import { input } from '../../../src/tensor/graph.ts';
import type { Shape } from '../../../src/tensor/shape.ts';
import type { NodeOf } from '../../../src/tensor/tensor.ts';

describe('memory plan', () => {
  const draws = randomInts(keyFromSeed(3), 600, 1000);
  const lifetimes = Array.from({ length: 200 }, (_, i): Lifetime => {
    const first = draws[3 * i]! % 50;
    return { bytes: draws[3 * i + 1]! * 100, first, last: first + (draws[3 * i + 2]! % 10) };
  });
  const { offsets, bytes } = planMemory(lifetimes);

  it('gives pieces that live at the same time memory of their own', () => {
    lifetimes.forEach((a, i) => {
      expect(offsets[i]! + a.bytes).toBeLessThanOrEqual(bytes);
      lifetimes.slice(0, i).forEach((b, j) => {
        const together = a.first <= b.last && b.first <= a.last && a.bytes > 0 && b.bytes > 0;
        const apart = offsets[i]! + a.bytes <= offsets[j]! || offsets[j]! + b.bytes <= offsets[i]!;
        expect(!together || apart, `pieces ${i} and ${j}`).toBe(true);
      });
    });
  });

  it('takes little more than what lives at once', () => {
    const most = Math.max(
      ...Array.from({ length: 60 }, (_, step) =>
        lifetimes.reduce(
          (sum, { bytes: size, first, last }) => sum + (first <= step && step <= last ? size : 0),
          0,
        ),
      ),
    );
    expect(bytes).toBeGreaterThanOrEqual(most);
    expect(bytes).toBeLessThan(1.25 * most);
  });
});

describe('donated memory', () => {
  const given = (index: number): Location => ({ kind: 'input', index });
  const made = (value: number): Location => ({ kind: 'value', value });
  const step = (reads: Location[], writes: number[], inPlace: [number, number][] = []): StepAccess => ({
    reads,
    writes,
    inPlace,
  });
  const plan = (steps: StepAccess[], outputs: Location[], donated = [0]) =>
    Object.fromEntries(
      planDonations(
        donated,
        [64, 64],
        outputs.map((location) => ({ location, bytes: 64 })),
        steps,
      ),
    );

  it('is written where it is read elementwise for the last time', () => {
    expect(plan([step([given(0), given(1)], [0], [[0, 0]])], [made(0)])).toEqual({
      0: { output: 0, how: 'inPlace' },
    });
  });

  it('gets a copy when the step that makes the output reads it otherwise', () => {
    expect(plan([step([given(0)], [0])], [made(0)])).toEqual({ 0: { output: 0, how: 'copy' } });
    expect(plan([step([given(0), given(0)], [0], [[0, 0]])], [made(0)])).toEqual({
      0: { output: 0, how: 'copy' },
    });
  });

  it('gets a copy when a later step reads it', () => {
    const steps = [step([given(0)], [0], [[0, 0]]), step([given(0)], [1])];
    expect(plan(steps, [made(0)])).toEqual({ 0: { output: 0, how: 'copy' } });
  });

  it('stays an output that it is itself', () => {
    expect(plan([step([given(0)], [0], [[0, 0]])], [made(0), given(0)])).toEqual({
      0: { output: 1, how: 'same' },
    });
  });

  it('is left alone when it is another output', () => {
    expect(plan([step([given(0)], [0], [[0, 0]])], [given(0), made(0)])).toEqual({});
  });

  it('moves a value to one place only', () => {
    const steps = [
      step(
        [given(0), given(1)],
        [0],
        [
          [0, 0],
          [1, 0],
        ],
      ),
    ];
    const donations = planDonations(
      [0, 1],
      [64, 64],
      [made(0), made(0)].map((location) => ({ location, bytes: 64 })),
      steps,
    );
    expect([...donations.values()].filter(({ how }) => how === 'inPlace')).toHaveLength(1);
  });
});

describe('matmul plan', () => {
  const plan = (a: Shape, b: Shape, transposeA = false, transposeB = false) => {
    const y = matmul(input('a', { shape: a, dtype: 'f32' }), input('b', { shape: b, dtype: 'f32' }), {
      transposeA,
      transposeB,
    });
    return planMatmul(y.node as NodeOf<'matmul'>);
  };

  it('joins a batch that shares its matrix into rows', () => {
    expect(plan([8, 5, 3, 4], [4, 6]).gemm).toMatchObject({ m: 120, n: 6, k: 4, batch: 1 });
  });

  it('strides over batches, shared operands standing still', () => {
    expect(plan([8, 5, 3, 4], [8, 5, 4, 6]).gemm).toMatchObject({ batch: 40, strideA: 12, strideB: 24 });
    expect(plan([3, 4], [7, 4, 6]).gemm).toMatchObject({ batch: 7, strideA: 0, strideB: 24 });
  });

  it('starts several products where no single stride fits', () => {
    const { gemm, starts } = plan([2, 1, 3, 4], [7, 4, 6]);
    expect(gemm).toMatchObject({ batch: 7, strideA: 0, strideB: 24 });
    expect(starts).toEqual([
      [0, 0, 0],
      [12, 0, 126],
    ]);
  });
});

describe('discovery', () => {
  it('reports what it finds without throwing', () => {
    expect(reportLibraries().map(({ name }) => name)).toEqual([
      'driver',
      'nvrtc',
      'cublasLt',
      'cudnn',
      'nccl',
    ]);
    expect(candidates('driver')).toContain('libcuda.so.1');
  });
});
