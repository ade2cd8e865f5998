import { fold, keyFromSeed } from '../../random/philox.ts';
import type { Colour, MotionKind, Place, Scene, Shape } from './scene.ts';

/** The two halves into which worlds are divided: models train on one and are asked for the other. */
export const splits = ['train', 'held-out'] as const;
/** One of {@link splits}. */
export type Split = (typeof splits)[number];

/** What evaluation combines anew: one object with what it does and where. */
export interface Combination {
  readonly shape: Shape;
  readonly colour: Colour;
  readonly motion: MotionKind;
  readonly place: Place;
}

/** One combination in so many is held out. */
const heldOutOneIn = 10;

/**
 * Whether a combination is kept from training. It depends on nothing but the four words, never on a seed, so every data
 * set of every version agrees: a hash of `shape colour motion place`, of which one in ten is held out. Each word, and
 * nearly each pair of words, is still seen in training.
 */
export function holdout({ shape, colour, motion, place }: Combination): boolean {
  const hashed = fold(keyFromSeed(0), `holdout ${shape} ${colour} ${motion} ${place}`);
  return hashed.k0 % heldOutOneIn === 0;
}

/** The split of a scene: held out when any object of it makes a held-out combination. */
export function splitOf({ objects, background }: Pick<Scene, 'objects' | 'background'>): Split {
  const { place } = background;
  const held = objects.some(({ shape, colour, motion }) =>
    holdout({ shape, colour, motion: motion.kind, place }),
  );
  return held ? 'held-out' : 'train';
}
