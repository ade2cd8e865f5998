import { describe, expect, test } from 'vitest';
import { type ClipPlan, type FrameFacts, planClip } from '../../src/data/plan.ts';
import { checkWindow, defaultWindow, floorFrames, type WindowSpec } from '../../src/data/window.ts';
import { keyFromSeed, RandomStream } from '../../src/random/philox.ts';

const everything = { start: 0, end: Number.POSITIVE_INFINITY };

function video(frames: number, rate: number, size = { width: 256, height: 256 }): FrameFacts {
  return {
    ...size,
    rate,
    still: false,
    timestamps: Float64Array.from({ length: frames }, (_, i) => i / rate),
  };
}

/** Clips and recipes of all kinds: even and uneven rates, offsets, tiny and huge, with and without a range. */
function randomCase(seed: number): {
  facts: FrameFacts;
  range: { start: number; end: number };
  spec: WindowSpec;
} {
  const random = new RandomStream(keyFromSeed(seed));
  const rate = random.pick([1, 8, 12, 23.976, 24, 25, 29.97, 30, 59.94, 120]);
  const jitter = random.pick([0, 0, 0, 0.2, 0.9]);
  const frames = 1 + random.int(random.pick([3, 40, 400]));
  const offset = random.pick([0, 0, 10]);
  const timestamps = Float64Array.from(
    { length: frames },
    (_, i) => offset + (i + random.uniform(0, jitter)) / rate,
  );
  const side = () => 1 + random.int(random.pick([20, 400, 4000]));
  const time = random.pick([1, 4, 8]);
  const start = random.pick([0, 0, random.uniform(0, 12)]);
  return {
    facts: { width: side(), height: side(), rate, still: frames === 1, timestamps },
    range: { start, end: random.pick([Number.POSITIVE_INFINITY, start + random.uniform(0.01, 5)]) },
    spec: checkWindow(
      {
        maxFrames: 1 + time * random.int(30),
        minSeconds: random.pick([0, 0.3, 2]),
        rate: random.pick(['native', 12, 16, 24]),
        maxPixels: 1024 + random.int(200_000),
        stride: { time, space: random.pick([8, 16, 32]) },
      },
      'random',
    ),
  };
}

const cases = Array.from({ length: 3000 }, (_, seed) => ({ seed, ...randomCase(seed) }));

describe('every plan', () => {
  test('accounts for every frame of the file exactly once', () => {
    for (const { seed, facts, range, spec } of cases) {
      const plan = planClip(facts, range, spec);
      const pieces = [...plan.windows.map(({ source }) => source), ...plan.trimmed].sort(
        (a, b) => a.from - b.from,
      );
      let next = 0;
      for (const { from, to } of pieces) {
        expect(from, `case ${seed}`).toBe(next);
        expect(to, `case ${seed}`).toBeGreaterThan(from);
        next = to;
      }
      expect(next, `case ${seed}`).toBe(facts.timestamps.length);
    }
  });

  test('gives windows that the recipe allows', () => {
    for (const { seed, facts, spec, range } of cases) {
      for (const { frames, rate, size, source, leftOut, repeated, start } of planClip(facts, range, spec)
        .windows) {
        const label = `case ${seed}`;
        expect(frames, label).toBe(floorFrames(frames, spec));
        expect(frames, label).toBeLessThanOrEqual(spec.maxFrames);
        if (!facts.still) expect(frames / rate, label).toBeGreaterThanOrEqual(spec.minSeconds - 0.002);
        expect(frames, label).toBe(source.to - source.from - leftOut + repeated);
        expect(start, label).toBe(facts.timestamps[source.from]);
        if (spec.rate !== 'native' && !facts.still) expect(rate, label).toBeLessThanOrEqual(spec.rate * 1.01);
        expect([size.width % spec.stride.space, size.height % spec.stride.space], label).toEqual([0, 0]);
        expect(size.width * size.height, label).toBeLessThanOrEqual(spec.maxPixels);
        expect(size.width <= facts.width && size.height <= facts.height, label).toBe(true);
      }
    }
  });

  test('says why: no outcome without a reason, and none that contradicts its windows', () => {
    const seen = new Set<string>();
    for (const { seed, facts, range, spec } of cases) {
      const plan = planClip(facts, range, spec);
      seen.add(plan.outcome);
      expect(plan.reasons.join('').length, `case ${seed}`).toBeGreaterThan(0);
      expect(plan.trimmed.every(({ reason }) => reason.length > 0)).toBe(true);
      expect(plan.windows.length === 0, `case ${seed}`).toBe(plan.outcome === 'skipped');
      const lost = plan.trimmed.filter(({ outside }) => !outside);
      if (plan.outcome === 'whole') expect([plan.windows.length, lost], `case ${seed}`).toEqual([1, []]);
      if (plan.outcome !== 'retimed') {
        expect(
          plan.windows.every((w) => w.leftOut === 0 && w.repeated === 0),
          `case ${seed}`,
        ).toBe(true);
      }
    }
    expect([...seen].sort()).toEqual(['retimed', 'skipped', 'trimmed', 'whole', 'windows']);
  });

  test('re-times to the frame nearest each tick', () => {
    for (const { facts, range, spec } of cases) {
      for (const window of planClip(facts, range, spec).windows.filter(({ retimed }) => retimed)) {
        const nearest = Array.from({ length: window.frames }, (_, k) => {
          const tick = window.start + k / window.rate;
          const distances = [...facts.timestamps]
            .slice(window.source.from, window.source.to)
            .map((t) => Math.abs(t - tick));
          return distances.indexOf(Math.min(...distances));
        });
        const distinct = new Set(nearest).size;
        expect(window.leftOut).toBe(window.source.to - window.source.from - distinct);
        expect(window.repeated).toBe(window.frames - distinct);
      }
    }
  });
});

function summary(plan: ClipPlan): unknown[] {
  return [plan.outcome, plan.windows.map(({ frames }) => frames), plan.reasons];
}

describe('the plan of', () => {
  test('a clip that fits', () => {
    expect(summary(planClip(video(97, 24), everything, defaultWindow))).toEqual([
      'whole',
      [97],
      ['97 frames at 24 fps are one window'],
    ]);
  });

  test('a clip with frames over', () => {
    expect(summary(planClip(video(100, 24), everything, { ...defaultWindow, minSeconds: 0 }))).toEqual([
      'trimmed',
      [97],
      ['last 3 frames trimmed: too few for another window (5 frames or more)'],
    ]);
  });

  test('a long clip', () => {
    const plan = planClip(video(240, 24), everything, defaultWindow);
    expect(summary(plan)).toEqual([
      'windows',
      [97, 97, 45],
      [
        '240 frames cut into 3 windows',
        'last 1 frame trimmed: too few for another window (13 frames or more)',
      ],
    ]);
  });

  test('the 101 frames at 24 fps that other stacks silently turn into 67 at 16 fps', () => {
    const plan = planClip(video(101, 24), everything, { ...defaultWindow, rate: 16 });
    expect(plan.outcome).toBe('retimed');
    expect(plan.windows.map(({ frames }) => frames)).toEqual([65]);
    expect(plan.reasons[0]).toBe('24 fps re-timed to 16 fps: 32 frames left out, 0 repeated');
  });

  test('a clip slower than the recipe keeps its rate', () => {
    const plan = planClip(video(33, 12), everything, { ...defaultWindow, rate: 24 });
    expect(summary(plan)).toEqual(['whole', [33], ["keeps its own 12 fps, slower than the recipe's 24 fps"]]);
  });

  test('film at 23.976 fps for a recipe of 24 loses no frame', () => {
    expect(planClip(video(97, 23.976), everything, { ...defaultWindow, rate: 24 }).outcome).toBe('whole');
  });

  test('millisecond timestamps are even, a held frame is not', () => {
    const rounded = video(30, 30);
    const timestamps = rounded.timestamps.map((t) => Math.round(t * 1000) / 1000);
    expect(planClip({ ...rounded, timestamps }, everything, defaultWindow).outcome).toBe('trimmed');
    const held = timestamps.map((t, i) => (i > 15 ? t + 0.1 : t));
    const plan = planClip({ ...rounded, timestamps: held }, everything, defaultWindow);
    expect(plan.outcome).toBe('retimed');
    expect(plan.windows[0]?.repeated).toBeGreaterThan(0);
  });

  test('a part of a file', () => {
    const plan = planClip(video(100, 10), { start: 2, end: 5.3 }, { ...defaultWindow, minSeconds: 0 });
    expect(plan.windows.map(({ source }) => source)).toEqual([{ from: 20, to: 53 }]);
    expect(plan.trimmed).toEqual([
      { from: 0, to: 20, reason: 'before the clip begins', outside: true },
      { from: 53, to: 100, reason: 'after the clip ends', outside: true },
    ]);
    expect(plan.outcome).toBe('whole');
  });

  test('what cannot be used', () => {
    const reason = (facts: FrameFacts, spec = defaultWindow) => planClip(facts, everything, spec).reasons[0];
    expect(reason(video(5, 24))).toMatch(/^too short: has 5 frames at 24 fps \(0.21 s\)/);
    expect(reason(video(50, 24, { width: 8, height: 300 }))).toMatch(/smaller than one patch/);
    expect(reason(video(50, 24, { width: 16, height: 8000 }))).toMatch(/too long and narrow/);
    expect(reason(video(500, 240), { ...defaultWindow, minSeconds: 1 })).toMatch(/need 241 frames/);
    expect(reason(video(50, 24), { ...defaultWindow, maxFrames: 1 })).toMatch(/stills only/);
  });

  test('a still', () => {
    const still = { ...video(1, 1, { width: 128, height: 128 }), still: true };
    expect(summary(planClip(still, everything, defaultWindow))).toEqual(['whole', [1], ['a still']]);
  });

  test('a picture is scaled at its own aspect ratio', () => {
    const plan = planClip(video(97, 24, { width: 1280, height: 720 }), everything, defaultWindow);
    expect(plan.windows[0]?.size).toEqual({ width: 336, height: 192 });
    expect(plan.reasons).toContain('1280x720 scaled to 336x192 (1.6% of the picture is cut off)');
  });
});

describe('recipe windows', () => {
  const mistakes: [unknown, RegExp][] = [
    [3, /^r: must be an object/],
    [{ fps: 24 }, /^r: unknown setting 'fps'; use maxFrames/],
    [{ maxFrames: 32 }, /^r.maxFrames: 32 is not 1 more than a multiple of 4; use 29 or 33$/],
    [{ maxFrames: 2.5 }, /whole number/],
    [{ rate: 'fast' }, /^r.rate: must be a number from 0.1 to 1000 or 'native', got "fast"$/],
    [{ maxPixels: 100 }, /less than one patch/],
    [{ stride: { time: 0 } }, /^r.stride.time: must be a number from 1/],
    [{ minSeconds: -1 }, /minSeconds/],
  ];
  test.each(mistakes)('%j is refused', (value, message) => {
    expect(() => checkWindow(value, 'r')).toThrow(message);
  });
  test('an empty one is the default', () => {
    expect(checkWindow({}, 'r')).toEqual(defaultWindow);
  });
});
