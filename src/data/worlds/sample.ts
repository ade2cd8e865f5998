import { UserError } from '../../errors.ts';
import { fold, type Key, RandomStream } from '../../random/philox.ts';
import { drawMotion } from './draw-motion.ts';
import { nameable } from './palette.ts';
import { canBeFollowed } from './parse-scene.ts';
import { arrange, type Member } from './place-objects.ts';
import {
  type Background,
  type Camera,
  type Colour,
  colours,
  directions,
  type Finish,
  type MotionKind,
  maxObjects,
  motionKinds,
  type Place,
  places,
  type Scene,
  type Shape,
  type Size,
  shapes,
  type Time,
  times,
  type Weather,
} from './scene.ts';
import { type Split, splitOf } from './split.ts';

/** What may be drawn; each list defaults to everything there is. What it names twice is drawn twice as often. */
export interface Choices {
  readonly shapes?: readonly Shape[];
  readonly colours?: readonly Colour[];
  readonly sizes?: readonly Size[];
  readonly finishes?: readonly Finish[];
  readonly motions?: readonly MotionKind[];
  readonly places?: readonly Place[];
  readonly times?: readonly Time[];
  readonly weathers?: readonly Weather[];
  readonly cameras?: readonly Camera['kind'][];
  /** Numbers of objects, each 1 to 4. */
  readonly counts?: readonly number[];
}

/** How to draw scenes. */
export interface SampleOptions {
  /** Duration in seconds; default 2. */
  readonly seconds?: number;
  /** Draw only scenes of this split; default either. */
  readonly split?: Split;
  /** Draw only from these. Someone who follows needs someone who slides, bounces or orbits among the motions. */
  readonly choices?: Choices;
}

const attempts = 400;

/**
 * A random scene: the same key and options give the same scene. Objects do not hide each other for long, stay in the
 * frame, and have colours that can be told from the background.
 *
 * @throws UserError when no scene of the split can be found among the choices.
 */
export function sampleScene(key: Key, options: SampleOptions = {}): Scene {
  const { seconds = 2, split, choices = {} } = options;
  for (let attempt = 0; attempt < attempts; attempt++) {
    const random = new RandomStream(fold(key, attempt));
    const background = drawBackground(random, choices);
    const camera = drawCamera(random, choices);
    const cast = drawCast(random, background, choices);
    const decor = random.int(2 ** 32);
    if (cast === undefined) continue;
    const objects = arrange({ seconds, background, camera, objects: [], decor }, cast, random);
    if (objects === undefined) continue;
    const scene = { seconds, background, camera, objects, decor };
    if (split === undefined || splitOf(scene) === split) return scene;
  }
  throw new UserError(
    `worlds: found no ${split ?? 'possible'} scene in ${attempts} attempts; allow more shapes, colours or motions`,
  );
}

/** One of `items`, of which only those in `allowed` (all when undefined) can be drawn, by weight and how often they are there. */
function drawWeighted<T>(
  random: RandomStream,
  items: readonly (readonly [item: T, weight: number])[],
  allowed: readonly T[] | undefined,
): T | undefined {
  const listed = (item: T) => allowed?.filter((one) => one === item).length ?? 1;
  const open = items
    .filter(([item]) => listed(item) > 0)
    .map(([item, weight]) => [item, weight * listed(item)] as const);
  const total = open.reduce((sum, [, weight]) => sum + weight, 0);
  let left = random.uniform(0, total);
  for (const [item, weight] of open) {
    left -= weight;
    if (left < 0) return item;
  }
  return open.at(-1)?.[0];
}

const evenly = <T>(items: readonly T[]) => items.map((item) => [item, 1] as const);

/** A random background among the choices. */
export function drawBackground(random: RandomStream, choices: Choices): Background {
  // Fewer colours are turned down in space, so it would come up more often than the others.
  const weights = places.map((name) => [name, name === 'space' ? 0.7 : 1] as const);
  const place = drawWeighted(random, weights, choices.places) ?? 'meadow';
  const time = drawWeighted(random, evenly(times), choices.times) ?? 'day';
  const weather =
    drawWeighted<Weather>(
      random,
      [
        ['clear', 7],
        ['rain', 1.5],
        ['snow', 1.5],
      ],
      choices.weathers,
    ) ?? 'clear';
  return place === 'space' ? { place, time: 'night', weather: 'clear' } : { place, time, weather };
}

function drawCamera(random: RandomStream, choices: Choices): Camera {
  const kind = drawWeighted<Camera['kind']>(
    random,
    [
      ['still', 6],
      ['pan', 1.6],
      ['zoom', 1.6],
      ['shake', 0.8],
    ],
    choices.cameras,
  );
  if (kind === 'pan') return { kind, direction: random.pick(directions) };
  if (kind === 'zoom') return { kind, direction: random.pick(['in', 'out']) };
  return { kind: kind ?? 'still' };
}

/** Who plays in the scene and what they do, without their places; undefined when the draw contradicts itself. */
function drawCast(random: RandomStream, background: Background, choices: Choices): Member[] | undefined {
  const count = drawWeighted(
    random,
    [
      [1, 4],
      [2, 4],
      [3, 3],
      [maxObjects, 3],
    ],
    choices.counts,
  );
  if (count === undefined) return undefined;
  const alike = count > 1 && random.uniform() < 0.3;
  const cast: Member[] = [];
  for (let i = 0; i < count; i++) {
    const first = cast[0];
    if (alike && first !== undefined) {
      cast.push(first);
      continue;
    }
    const member = drawMember(random, background, choices, cast, { count, alike });
    if (member === undefined) return undefined;
    cast.push(member);
  }
  return cast;
}

/**
 * A random object for a cast of `count` that has some members already; undefined when the draw contradicts itself. A
 * colour that is hard to see against the background is drawn only where it is the one choice.
 */
export function drawMember(
  random: RandomStream,
  background: Background,
  choices: Choices,
  cast: readonly Member[],
  { count, alike }: { count: number; alike: boolean },
): Member | undefined {
  const shape = drawWeighted(random, evenly(shapes), choices.shapes) ?? 'ball';
  const colour = drawWeighted(random, evenly(colours), choices.colours) ?? 'red';
  const kind = drawWeighted(random, motionWeights(cast, alike), choices.motions);
  const size = drawWeighted(random, sizeWeights(count, kind), choices.sizes);
  // Only stripes show that something round turns.
  const mustShow = kind === 'spin' && (shape === 'ball' || shape === 'ring');
  const finish = drawWeighted<Finish>(
    random,
    [
      ['plain', mustShow ? 0 : 2],
      ['striped', 1],
      ['shiny', mustShow ? 0 : 1],
    ],
    choices.finishes,
  );
  if (size === undefined || finish === undefined || kind === undefined) return undefined;
  if (choices.colours?.length !== 1 && !nameable(colour, background)) return undefined;
  const double = cast.some((other) => other.shape === shape && other.colour === colour);
  if (double) return undefined;
  const motion = drawMotion(random, kind, cast);
  return motion && { shape, colour, size, finish, motion };
}

/** The more objects, the smaller; what grows begins smaller still, what shrinks larger. */
function sizeWeights(count: number, kind: MotionKind | undefined): readonly (readonly [Size, number])[] {
  const large = kind === 'grow' ? 0 : count === 1 ? 3 : count === 2 ? 1.2 : 0;
  return [
    ['small', kind === 'shrink' ? 0 : 3],
    ['medium', count > 2 ? 2 : 4],
    ['large', large],
  ];
}

/** Others than the first often rest, so that it is clear what moves. */
function motionWeights(cast: readonly Member[], alike: boolean): readonly (readonly [MotionKind, number])[] {
  return motionKinds.map((kind) => {
    if (kind === 'still') return [kind, cast.length === 0 ? 0.6 : 5];
    if (kind === 'follow') return [kind, cast.some((member) => canBeFollowed(member.motion)) ? 8 : 0];
    const centre = cast.some((member) => member.motion.kind === 'still');
    if (kind === 'orbit' && centre) return [kind, 3];
    // More than others fail to find a place, or someone to follow them.
    if (kind === 'slide') return [kind, cast.length === 0 ? 2 : 0.7];
    if (alike && kind === 'orbit') return [kind, 0];
    // These find a place more easily than the rest.
    return [kind, kind === 'blink' || kind === 'rise' ? 0.7 : 1];
  });
}
