import { describe, expect, it } from 'vitest';
import { objectState } from '../../src/data/worlds/motion.ts';
import { sampleScene } from '../../src/data/worlds/sample.ts';
import type { MotionKind, Scene } from '../../src/data/worlds/scene.ts';
import { stageFor } from '../../src/data/worlds/stage.ts';
import { fitMotion, fitSpin, type PathPoint } from '../../src/evaluation/motion-fit.ts';
import { fold, keyFromSeed, RandomStream } from '../../src/random/philox.ts';

const kinds = ['still', 'slide', 'bounce', 'orbit', 'grow', 'shrink', 'fall', 'rise', 'blink'] as const;

/** The true path of a scene's object, off by about as much as measuring is. */
function pathOf(scene: Scene, frames: number, aspect: number, random: RandomStream): PathPoint[] {
  const stage = stageFor(aspect, 1);
  const jitter = () => random.uniform(-0.025, 0.025);
  return Array.from({ length: frames }, (_, i) => (i / frames) * scene.seconds).flatMap((time) => {
    const { x, y, radius, opacity } = objectState(scene, stage, 0, time);
    if (opacity < 0.3) return [];
    return [{ time, x: x + jitter(), y: y + jitter(), radius: radius * (1 + jitter()) }];
  });
}

describe('motions fitted to paths', () => {
  it.each(kinds)('%s, its direction or turn, in any aspect and for 2 to 3 seconds', (kind: MotionKind) => {
    const wrong: string[] = [];
    for (let i = 0; i < 60; i++) {
      const key = fold(fold(keyFromSeed(12), kind), i);
      const frames = [25, 25, 37][i % 3]!;
      const scene = sampleScene(key, {
        seconds: frames / 12,
        choices: { motions: [kind], counts: [1], cameras: ['still'] },
      });
      const path = pathOf(scene, frames, [1, 1.5, 64 / 112][i % 3]!, new RandomStream(fold(key, 'jitter')));
      const found = fitMotion(path, frames, scene.seconds);
      const {
        pace: _,
        phase: __,
        around: ___,
        ...told
      } = {
        pace: 0,
        phase: 0,
        around: 0,
        ...scene.objects[0]!.motion,
      };
      if (JSON.stringify(found) !== JSON.stringify(told)) {
        wrong.push(`${i}: ${JSON.stringify(scene.objects[0])} ${JSON.stringify(found)}`);
      }
    }
    expect(wrong.length, wrong.join('\n')).toBeLessThanOrEqual(1);
  });

  it('tells what becomes too small to be seen from what blinks', () => {
    const path = Array.from({ length: 18 }, (_, i) => ({
      time: i / 12,
      x: 0,
      y: 0,
      radius: 0.3 * (1 - i / 25),
    }));
    expect(fitMotion(path, 25, 25 / 12)).toEqual({ kind: 'shrink' });
    const even = path.map((point) => ({ ...point, radius: 0.3 }));
    expect(fitMotion(even, 25, 25 / 12)).toEqual({ kind: 'blink' });
  });
});

describe('spinning', () => {
  /** Errors that are least at an angle of `turns` full turns. */
  const errorsFor = (turnsAt: (time: number) => number) =>
    Array.from({ length: 13 }, (_, i) => {
      const time = i / 6;
      const atAngle = Array.from({ length: 24 }, (_, k) => {
        const away = k / 24 - turnsAt(time);
        return 20 + 80 * Math.abs(away - Math.round(away));
      });
      return { time, atAngle };
    });

  it('has the sense in which the best angle goes', () => {
    for (const period of [4, 2.6, 1.6]) {
      expect(fitSpin(errorsFor((time) => 0.3 + time / period))).toBe('clockwise');
      expect(fitSpin(errorsFor((time) => 0.3 - time / period))).toBe('counterclockwise');
    }
  });

  it('is not seen where one angle is as good', () => {
    expect(fitSpin(errorsFor(() => 0.3))).toBeUndefined();
    const flat = errorsFor(() => 0).map(({ time }) => ({ time, atAngle: new Array<number>(24).fill(50) }));
    expect(fitSpin(flat)).toBeUndefined();
  });
});
