import { describe, expect, it } from 'vitest';
import { guided } from '../../src/diffusion/guidance.ts';
import { evaluationsOf, type SamplerName, samplers, type Velocity } from '../../src/diffusion/samplers.ts';
import { timestepSchedule, timestepShift } from '../../src/diffusion/timesteps.ts';

/** Data N(mean, deviation^2): x_t is Gaussian, its velocity linear, and the flow keeps quantiles, all exactly. */
function gaussianFlow(mean: number, deviation: number) {
  const variance = (t: number) => ((1 - t) * deviation) ** 2 + t ** 2;
  const velocity: Velocity = async (x, t) => {
    expect(t).toBeGreaterThan(0);
    const slope = (t - (1 - t) * deviation ** 2) / variance(t);
    return x.map((value) => slope * (value - (1 - t) * mean) - mean);
  };
  /** Where the flow takes x from timestep `from` to 0. */
  const end = (x: number, from: number) =>
    mean + (deviation * (x - (1 - from) * mean)) / Math.sqrt(variance(from));
  return { velocity, end };
}

const start = Float32Array.from({ length: 9 }, (_, i) => i / 2 - 2);

async function errorOf(sampler: SamplerName, steps: number, shift: number, from: number): Promise<number> {
  const { velocity, end } = gaussianFlow(0.7, 0.5);
  const found = await samplers[sampler](velocity, start, timestepSchedule(steps, shift, from));
  return Math.hypot(...found.map((value, i) => value - end(start[i]!, from)));
}

describe('samplers', () => {
  const orders = { euler: 1, heun: 2, multistep: 2 } as const;
  for (const [sampler, order] of Object.entries(orders) as [SamplerName, number][]) {
    it.each([
      [1, 1],
      [2, 1],
      [2, 0.6],
    ])(`${sampler} converges with order ${order} (shift %d, from %d)`, async (shift, from) => {
      // Errors stay far above float32 rounding (1e-6 here) at these numbers of steps.
      const errors = await Promise.all([16, 32, 64].map((steps) => errorOf(sampler, steps, shift, from)));
      const found = Math.log2(errors[1]! / errors[2]!);
      expect(errors[2]).toBeLessThan(errors[0]!);
      expect(found).toBeGreaterThan(order - 0.25);
      if (order === 1) expect(found).toBeLessThan(1.25);
    });
  }

  it('the second-order ones are far better at thirty steps', async () => {
    const [first, ...second] = await Promise.all(
      (['euler', 'heun', 'multistep'] as const).map((sampler) => errorOf(sampler, 30, 2, 1)),
    );
    for (const error of second) expect(error).toBeLessThan(first! / 5);
  });

  it.each(Object.keys(samplers) as SamplerName[])(
    '%s leaves values of velocity 0 alone, and asks as often as planned',
    async (sampler) => {
      let calls = 0;
      const velocity: Velocity = async (x, t) => {
        calls++;
        return x.map((value, i) => (i % 2 === 0 ? 0 : Math.sin(7 * t) + value));
      };
      const steps: number[] = [];
      const x = Float32Array.of(0.1, 0.2, -1 / 3, 0.4);
      const found = await samplers[sampler](velocity, x, timestepSchedule(7, 2.5), (done) =>
        steps.push(done),
      );
      expect([found[0], found[2]]).toEqual([x[0], x[2]]);
      expect(found[1]).not.toBe(x[1]);
      expect(steps).toEqual([1, 2, 3, 4, 5, 6, 7]);
      expect(calls).toBe(evaluationsOf(sampler, 7));
      expect([...x]).toEqual([...Float32Array.of(0.1, 0.2, -1 / 3, 0.4)]);
    },
  );
});

describe('schedules', () => {
  it('begin where told, end at 0 and descend, denser at the noise the greater the shift', () => {
    for (const from of [1, 0.85, 0.2]) {
      const schedule = timestepSchedule(10, timestepShift(448), from);
      expect([schedule.length, schedule[0], schedule[10]]).toEqual([11, from, 0]);
      for (let i = 0; i < 10; i++) expect(schedule[i]).toBeGreaterThan(schedule[i + 1]!);
    }
    expect(timestepSchedule(2, 1)[1]).toBe(0.5);
    expect(timestepSchedule(2, 3)[1]).toBeCloseTo(0.75, 12);
    // What is left of a schedule is the schedule from there.
    const [, second, third] = timestepSchedule(4, 3);
    expect(timestepSchedule(3, 3, second)[1]).toBeCloseTo(third!, 12);
  });
});

describe('guidance', () => {
  const asked: string[] = [];
  const constantly =
    (name: string, value: number): Velocity =>
    async (x) => {
      asked.push(name);
      return x.map(() => value);
    };
  const [c, u] = [constantly('c', 3), constantly('u', 2)];
  const x = new Float32Array(1);

  it.each([
    ['extrapolates', 4, 0.5, 6, ['c', 'u']],
    ['can subtract', 0, 0.5, 2, ['c', 'u']],
    ['asks once when it would change nothing', 1, 0.5, 3, ['c']],
    ['stops below its interval', 4, 0.19, 3, ['c']],
    ['stops above its interval', 4, 0.81, 3, ['c']],
    ['includes the ends', 4, 0.2, 6, ['c', 'u']],
  ])('%s', async (_, scale, t, expected, calls) => {
    asked.length = 0;
    expect([...(await guided(c, u, { scale, interval: [0.2, 0.8] })(x, t))]).toEqual([expected]);
    expect(asked).toEqual(calls);
  });
});
