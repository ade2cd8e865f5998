import { describe, expect, it } from 'vitest';
import { samplers } from '../../src/diffusion/samplers.ts';
import { timestepSchedule } from '../../src/diffusion/timesteps.ts';
import { corrected, correctionsOf } from '../../src/pipeline/correction.ts';

const schedule = timestepSchedule(30, 4);
const start = Float32Array.of(1, -2, 3);

describe('corrections', () => {
  it('are at the first steps not above their timesteps, once each, and never at the end', () => {
    const found = correctionsOf(schedule).map((index) => schedule[index]!);
    expect(found).toHaveLength(6);
    for (const [i, most] of [0.9, 0.8, 0.7, 0.6, 0.5, 0.3].entries()) {
      expect(found[i]).toBeLessThanOrEqual(most);
      expect(schedule[schedule.indexOf(found[i]!) - 1]).toBeGreaterThan(most);
    }
    expect(correctionsOf([1, 0.55, 0])).toEqual([1]);
    expect(correctionsOf([0.4, 0.35, 0.2, 0])).toEqual([0, 2]);
    expect(correctionsOf([1, 0])).toEqual([]);
  });

  it.each(Object.entries(samplers))(
    'that change nothing leave a straight path as it is, by %s',
    async (_, sampler) => {
      const data = Float32Array.of(0.5, 0, -1);
      const velocity = async () => start.map((noise, i) => noise - data[i]!);
      const estimates: Float32Array[] = [];
      const better = async (estimate: Float32Array) => {
        estimates.push(estimate);
        return estimate;
      };
      const found = await corrected(sampler, { where: () => true, better })(velocity, start, schedule);
      expect(estimates).toHaveLength(6);
      for (const values of [...estimates, found])
        for (const [i, value] of values.entries()) expect(value).toBeCloseTo(data[i]!, 5);
    },
  );

  it('let values go on from the better estimate with their noise, and no others', async () => {
    const evaluated: number[] = [];
    const velocity = async (x: Float32Array, t: number) => {
      evaluated.push(t);
      return new Float32Array(x.length);
    };
    const told: number[] = [];
    const correction = { where: (i: number) => i === 1, better: async () => Float32Array.of(9, 9, 9) };
    const run = corrected(samplers.euler, correction);
    const found = await run(velocity, start, schedule, (done) => told.push(done));
    // Standing still, a value is all noise and all data: each correction takes it 1 - t of the way to 9.
    const times = correctionsOf(schedule).map((index) => schedule[index]!);
    const expected = times.reduce((value, t) => (1 - t) * 9 + t * value, -2);
    expect(found[0]).toBe(1);
    expect(found[1]).toBeCloseTo(expected, 5);
    expect(found[2]).toBe(3);
    expect(told).toEqual(Array.from({ length: 36 }, (_, i) => i + 1));
    expect(evaluated).toHaveLength(36);
    for (const [i, t] of evaluated.entries()) if (i > 0) expect(t).toBeLessThanOrEqual(evaluated[i - 1]!);
  });
});
