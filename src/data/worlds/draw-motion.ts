import type { RandomStream } from '../../random/philox.ts';
import { canBeFollowed } from './parse-scene.ts';
import type { Member } from './place-objects.ts';
import { directions, type Motion, type MotionKind, type Pace, turns } from './scene.ts';

/**
 * A random motion of a kind for the next member of a cast; undefined when the cast has nobody to follow.
 * An orbit goes round an earlier member that rests, if there is one, half the time.
 */
export function drawMotion(
  random: RandomStream,
  kind: MotionKind,
  cast: readonly Member[],
): Motion | undefined {
  const pace = (): Pace => random.pick(['slow', 'steady', 'steady', 'fast']);
  // Sixteenths are short in JSON and enough.
  const phase = () => random.int(16) / 16;
  switch (kind) {
    case 'slide':
      return { kind, direction: random.pick(directions) };
    case 'bounce':
      return {
        kind,
        direction: random.pick(['in place', 'in place', 'left', 'right']),
        pace: pace(),
        phase: phase(),
      };
    case 'orbit': {
      const around = cast.findIndex((member) => member.motion.kind === 'still');
      const centred = around >= 0 && random.uniform() < 0.6;
      return {
        kind,
        turn: random.pick(turns),
        around: centred ? around : null,
        pace: pace(),
        phase: phase(),
      };
    }
    case 'spin':
      return { kind, turn: random.pick(turns), pace: pace(), phase: phase() };
    case 'blink':
      return { kind, pace: pace(), phase: phase() };
    case 'follow': {
      const target = cast.findIndex((member) => canBeFollowed(member.motion));
      return target < 0 ? undefined : { kind, target };
    }
    case 'still':
    case 'grow':
    case 'shrink':
    case 'fall':
    case 'rise':
      return { kind };
  }
}
