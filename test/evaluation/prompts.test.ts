import { describe, expect, it } from 'vitest';
import { splitOf } from '../../src/data/worlds/split.ts';
import { type HeldOutPrompt, heldOutPrompts } from '../../src/evaluation/held-out-prompts.ts';
import type { WorldSeen } from '../../src/evaluation/measure-world.ts';
import { measurePrompts } from '../../src/evaluation/prompt-accuracy.ts';
import { reportFormat, reportJson, reportTable, resumedReport } from '../../src/evaluation/report.ts';
import { accuracyOf, scoreOf } from '../../src/evaluation/score.ts';
import { videoFrom } from '../../src/video/frames.ts';
import { sceneOf } from '../data/worlds/scenes.ts';

const prompts = heldOutPrompts({ seed: 3, count: 200 });

describe('held-out prompts', () => {
  it('combine what training never does, one in five with two objects', () => {
    for (const { scene } of prompts) expect(splitOf(scene)).toBe('held-out');
    expect(prompts.filter(({ scene }) => scene.objects.length === 2)).toHaveLength(40);
    expect(new Set(prompts.map(({ prompt }) => prompt)).size).toBeGreaterThan(195);
  });

  it('are the same for a seed, the first of more', () => {
    expect(heldOutPrompts({ seed: 3, count: 5 })).toEqual(prompts.slice(0, 5));
    expect(heldOutPrompts({ seed: 4, count: 5 })).not.toEqual(prompts.slice(0, 5));
  });

  it('say most of what is asked, and are asked for nothing that they do not say', () => {
    const share = (what: keyof HeldOutPrompt['says']) =>
      prompts.filter(({ says }) => says[what]).length / prompts.length;
    expect(share('place')).toBeGreaterThan(0.85);
    expect(share('time')).toBeGreaterThan(0.5);
    expect(share('motion')).toBeGreaterThan(0.8);
    expect(share('direction')).toBeGreaterThan(0.25);
    for (const { prompt, says } of prompts) {
      const words = /\b(left|right|(counter|anti)?clockwise)\b/i;
      if (says.direction) expect(prompt).toMatch(words);
      if (says.time) expect(prompt).toMatch(/dawn|sun|day|morning|dusk|evening|night|moonlight/i);
    }
  });
});

const everything = { place: true, time: true, motion: true, direction: true };
const slides = sceneOf({ motion: { kind: 'slide', direction: 'left' }, shape: 'cone' });
const asked: HeldOutPrompt = { prompt: 'a red cone slides to the left', scene: slides, says: everything };
const seenObject = { unexplained: 0, gain: 1, colour: 'red', shape: 'cone' } as const;
const seen: WorldSeen = {
  place: 'meadow',
  time: 'day',
  objects: [{ ...seenObject, motion: { kind: 'slide', direction: 'left' } }],
};

describe('scores', () => {
  it('are all right for what was asked', () => {
    expect(Object.entries(scoreOf(asked, seen, 25)).filter(([, isRight]) => !isRight)).toEqual([]);
    expect(Object.keys(scoreOf(asked, seen, 1))).not.toContain('motion');
  });

  it('tell a wrong direction from a wrong motion, and ask for a direction only where one is said', () => {
    const motion = { kind: 'slide', direction: 'right' } as const;
    const turned = { ...seen, objects: [{ ...seenObject, motion }] };
    expect(scoreOf(asked, turned, 25)).toMatchObject({
      motion: false,
      'motion kind': true,
      direction: false,
    });
    const open = { ...asked, says: { ...everything, direction: false } };
    expect(scoreOf(open, turned, 25)).toMatchObject({ motion: true });
    expect(scoreOf(open, turned, 25).direction).toBeUndefined();
  });

  it('count what is there, and nothing where there is nothing', () => {
    const nothing = { ...seen, objects: [] };
    const score = scoreOf(asked, nothing, 25);
    expect([score.colour, score.shape, score.motion, score.count, score.background]).toEqual([
      false,
      false,
      false,
      false,
      true,
    ]);
  });

  it('ask two objects as a whole, in any order, and a follower for its leader’s motion', () => {
    const [leader] = slides.objects;
    const scene = {
      ...slides,
      objects: [leader!, { ...leader!, colour: 'blue', motion: { kind: 'follow', target: 0 } } as const],
    };
    const two = { ...asked, scene };
    const motion = { kind: 'slide', direction: 'left' } as const;
    const objects = [
      { ...seenObject, colour: 'blue', motion },
      { ...seenObject, motion },
    ] as const;
    expect(scoreOf(two, { ...seen, objects }, 25)).toEqual({
      background: true,
      'time of day': true,
      count: true,
      'both colours': true,
      'both shapes': true,
      'both motions': true,
    });
    const twice = [objects[1], objects[1]];
    expect(scoreOf(two, { ...seen, objects: twice }, 25)).toMatchObject({ 'both colours': false });
    expect(scoreOf(two, { ...seen, objects: [objects[0]] }, 25)).toMatchObject({ count: false });
  });

  it('add up over prompts that were asked', () => {
    const { colour, motion } = accuracyOf([
      { colour: true },
      { colour: false },
      { colour: true, motion: true },
    ]);
    expect([colour!.right, colour!.asked]).toEqual([2, 3]);
    expect(motion!.asked).toBe(1);
  });
});

describe('measuring prompts', () => {
  const video = videoFrom(new Uint8Array(3 * 16 * 16), { width: 16, height: 16, rate: 1 });
  const meter = { measure: () => seen } as never;

  it('takes up where it was, and stops between two prompts', async () => {
    const made: number[] = [];
    const stop = new AbortController();
    const make = (_: HeldOutPrompt, index: number) => {
      made.push(index);
      if (index === 4) stop.abort(new Error('stopped'));
      return Promise.resolve(video);
    };
    const kept: number[] = [];
    const hooks = {
      signal: stop.signal,
      onResult: async (_: unknown, { index }: { index: number }) => void kept.push(index),
    };
    await expect(measurePrompts(prompts, make, meter, { from: 2 }, hooks)).rejects.toThrow('stopped');
    expect(made).toEqual([2, 3, 4]);
    expect(kept).toEqual([2, 3, 4]);
  });
});

describe('reports', () => {
  const shape = { width: 64, height: 64, frames: 25, rate: 12 };
  const result = { index: 0, prompt: 'a', seen, score: scoreOf(asked, seen, 25) };
  const report = {
    format: reportFormat,
    settings: { seed: 1 },
    sizes: [{ shape, prompts: [result], flow: [{ timestep: 0.5, loss: 0.25 }] }],
  } as const;

  it('come back from their file for the same settings alone', () => {
    const text = reportJson(report);
    expect(resumedReport(text, { seed: 1 })!.sizes[0]!.prompts).toEqual([result]);
    expect(resumedReport(text, { seed: 2 })).toBeUndefined();
    expect(resumedReport('{', { seed: 1 })).toBeUndefined();
    expect(JSON.parse(text).sizes[0].accuracy.colour).toMatchObject({ right: 1, asked: 1, share: 1 });
  });

  it('print as a table', () => {
    expect(reportTable(report)).toMatchInlineSnapshot(`
      "64x64x25 at 12 frames a second
                          right    share   95% interval
        colour              1/1   100.0%   20.7% to 100.0%
        shape               1/1   100.0%   20.7% to 100.0%
        motion              1/1   100.0%   20.7% to 100.0%
        motion kind         1/1   100.0%   20.7% to 100.0%
        direction           1/1   100.0%   20.7% to 100.0%
        background          1/1   100.0%   20.7% to 100.0%
        time of day         1/1   100.0%   20.7% to 100.0%
        count               1/1   100.0%   20.7% to 100.0%
        flow loss 0.2500, by timestep:
             0.50
           0.2500
      "
    `);
  });
});
