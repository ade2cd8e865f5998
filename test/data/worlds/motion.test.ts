import { describe, expect, it } from 'vitest';
import { groundTruth, type ObjectTruth, statedAspects } from '../../../src/data/worlds/ground-truth.ts';
import type { Motion, Scene } from '../../../src/data/worlds/scene.ts';
import { randomScenes } from './scenes.ts';

const scenes = randomScenes(250, 2);
const area = ({ box }: ObjectTruth) => (box[2] - box[0]) * (box[3] - box[1]);
const bottom = ({ box }: ObjectTruth) => box[3];

/** Every object of the scenes with a kind of motion, in every aspect: its path, and those of the others. */
function paths<K extends Motion['kind']>(kind: K) {
  return scenes.flatMap((scene) =>
    scene.objects.flatMap(({ motion }, index) =>
      motion.kind !== kind
        ? []
        : statedAspects.map((aspect) => {
            const frames = groundTruth(scene, { width: 900 * aspect, height: 900, rate: 30 });
            const path = frames.map(({ objects }) => objects[index]!);
            return { scene, aspect, motion: motion as Extract<Motion, { kind: K }>, path, frames };
          }),
    ),
  );
}

const across = (path: readonly ObjectTruth[]) => path.at(-1)!.centre[0] - path[0]!.centre[0];
const shaking = ({ camera }: Scene) => camera.kind === 'shake';

describe('ground truth moves as the scene says, whatever the camera does', () => {
  it('slides and bounces go their way', () => {
    const moving = [...paths('slide'), ...paths('bounce')];
    expect(moving.length).toBeGreaterThan(100);
    for (const { motion, path, aspect, scene } of moving) {
      const way = motion.direction === 'right' ? 1 : motion.direction === 'left' ? -1 : 0;
      // Nearly half the frame for those that travel; no more than the camera for those that do not.
      const far = across(path) * way;
      if (way !== 0) expect(far).toBeGreaterThan(0.25);
      else
        expect(Math.abs(across(path))).toBeLessThan(
          scene.camera.kind === 'still' ? 1e-9 : 0.3 / Math.min(1, aspect),
        );
    }
  });

  it('bounces leave the ground and come back', () => {
    for (const { motion, path, scene } of paths('bounce')) {
      if (scene.camera.kind !== 'still') continue;
      const heights = path.map((at) => at.ground - bottom(at));
      expect(Math.max(...heights)).toBeGreaterThan(0.12);
      if (motion.pace !== 'slow') expect(Math.min(...heights)).toBeLessThan(0.03);
      expect(Math.min(...heights)).toBeGreaterThan(-0.01);
    }
  });

  it('orbits and spins turn the right way round', () => {
    for (const { motion, path, scene, frames } of paths('orbit')) {
      if (shaking(scene)) continue;
      const about = motion.around;
      const centre = (i: number): readonly [number, number] =>
        about === null ? meanOf(path) : frames[i]!.objects[about]!.centre;
      let turned = 0;
      for (let i = 1; i < path.length; i++) {
        const [x0, y0] = [
          path[i - 1]!.centre[0] - centre(i - 1)[0],
          path[i - 1]!.centre[1] - centre(i - 1)[1],
        ];
        const [x1, y1] = [path[i]!.centre[0] - centre(i)[0], path[i]!.centre[1] - centre(i)[1]];
        turned += Math.sign(x0 * y1 - y0 * x1);
      }
      // y runs down, so turning clockwise is positive. The mean of part of a round is off its centre.
      expect(Math.sign(turned)).toBe(motion.turn === 'clockwise' ? 1 : -1);
    }
    for (const { motion, path } of paths('spin')) {
      const turned = path.at(-1)!.angle - path[0]!.angle;
      expect(Math.sign(turned)).toBe(motion.turn === 'clockwise' ? 1 : -1);
      expect(Math.abs(turned)).toBeGreaterThan(2);
    }
  });

  it('grows, shrinks, falls, rises and blinks', () => {
    for (const { path } of paths('grow')) expect(area(path.at(-1)!)).toBeGreaterThan(1.9 * area(path[0]!));
    for (const { path } of paths('shrink')) expect(area(path.at(-1)!)).toBeLessThan(0.6 * area(path[0]!));
    for (const { path } of paths('fall')) {
      expect(path.at(-1)!.centre[1] - path[0]!.centre[1]).toBeGreaterThan(0.15);
      expect(Math.abs(path.at(-1)!.ground - bottom(path.at(-1)!))).toBeLessThan(0.02);
    }
    for (const { path } of paths('rise'))
      expect(path[0]!.centre[1] - path.at(-1)!.centre[1]).toBeGreaterThan(0.15);
    for (const { path } of paths('blink')) {
      expect(path.some(({ opacity }) => opacity === 1)).toBe(true);
      expect(path.some(({ opacity }) => opacity === 0)).toBe(true);
    }
  });

  it('followers come after whom they follow', () => {
    const following = paths('follow');
    expect(following.length).toBeGreaterThan(10);
    for (const { motion, path, frames, scene } of following) {
      const leader = scene.objects[motion.target]!.motion;
      if (!('direction' in leader) || leader.direction === 'in place') continue;
      const way = leader.direction === 'right' ? 1 : -1;
      for (const [i, at] of path.entries()) {
        expect((frames[i]!.objects[motion.target]!.centre[0] - at.centre[0]) * way).toBeGreaterThan(0.05);
      }
    }
  });

  it('what rests stays', () => {
    for (const { path, scene } of paths('still')) {
      if (scene.camera.kind === 'still') expect(new Set(path.map((at) => at.box.join())).size).toBe(1);
    }
  });
});

function meanOf(path: readonly ObjectTruth[]): readonly [number, number] {
  const xs = path.map(({ centre }) => centre[0]);
  const ys = path.map(({ centre }) => centre[1]);
  return [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
}
