import { UserError } from '../../errors.ts';
import { fold, type Key, RandomStream } from '../../random/philox.ts';
import { relationBetween, sideOf } from './ground-truth.ts';
import { interpret, type ObjectSketch, type Sketch } from './interpret.ts';
import { arrange, type Member } from './place-objects.ts';
import { type Choices, drawBackground, drawMember, sampleScene } from './sample.ts';
import { type Motion, maxObjects, places, type Scene } from './scene.ts';

const attempts = 120;

/**
 * A scene that does what a text says, in the words of captions, and chooses the rest at random by key. Describing it in
 * detail expands the text: `describe(imagine(prompt, key), 'detailed', key)`.
 *
 * Where objects lie to each other is kept where possible; everything else that the text says is kept always.
 * @param options `seconds`: duration of the scene, default 2.
 * @throws UserError when what it says cannot be shown, such as a large ball that grows.
 */
export function imagine(text: string, key: Key, { seconds = 2 }: { readonly seconds?: number } = {}): Scene {
  const sketch = interpret(text);
  const choices = settingChoices(sketch);
  if (sketch.objects.length === 0) return sampleScene(key, { seconds, choices });
  // The objects of a group become neighbours in the cast; `starts` has the first of each.
  const starts = sketch.objects.map((_, i) =>
    sketch.objects.slice(0, i).reduce((sum, { count }) => sum + count, 0),
  );
  const total = sketch.objects.reduce((sum, { count }) => sum + count, 0);
  if (total > maxObjects) {
    throw new UserError(`prompt: ${total} objects are more than a world holds; use at most ${maxObjects}`);
  }
  for (let attempt = 0; attempt < attempts; attempt++) {
    const random = new RandomStream(fold(key, attempt));
    const background = drawBackground(random, choices);
    const cast = castOf(random, sketch, background, total, starts);
    const decor = random.int(2 ** 32);
    if (cast === undefined) continue;
    const scene = { seconds, background, camera: sketch.camera ?? { kind: 'still' }, objects: [], decor };
    const strict = attempt < attempts / 2;
    const objects = arrange(scene, cast, random, (found) => !strict || liesAsSaid(found, sketch, starts));
    if (objects !== undefined) return { ...scene, objects };
  }
  throw new UserError('prompt: what it says cannot be shown together; say less, or use smaller objects');
}

function settingChoices({ place, time, weather }: Sketch): Choices {
  // Space has no day and no weather.
  const earthly = (time !== undefined && time !== 'night') || (weather !== undefined && weather !== 'clear');
  const open = places.filter((name) => !(earthly && name === 'space'));
  return {
    places: place === undefined ? open : [place],
    ...(time === undefined ? {} : { times: [time] }),
    ...(weather === undefined ? {} : { weathers: [weather] }),
  };
}

function castOf(
  random: RandomStream,
  sketch: Sketch,
  background: Scene['background'],
  total: number,
  starts: readonly number[],
): Member[] | undefined {
  const cast: Member[] = [];
  for (const [i, given] of sketch.objects.entries()) {
    const said = { ...partnerMotion(random, sketch, i), ...given };
    const drawn = drawMember(random, background, memberChoices(said), cast, { count: total, alike: false });
    // Followers may be mentioned before whom they follow.
    const member = drawn ?? memberAhead(random, background, said, total);
    const motion = member && motionAsSaid(member.motion, said, starts);
    if (member === undefined || motion === undefined) return undefined;
    for (let i = 0; i < said.count; i++) cast.push({ ...member, motion });
  }
  return cast;
}

/** A motion for an object of which the text says only that others follow it or go round it. */
function partnerMotion(random: RandomStream, sketch: Sketch, index: number): Pick<ObjectSketch, 'motion'> {
  const partner = sketch.objects.find(({ target }) => target === index);
  if (partner?.motion === 'follow') return { motion: 'slide' };
  return partner === undefined ? {} : { motion: random.pick(['still', 'still', 'spin']) };
}

/** A member whose motion relates to one that is not there yet: drawn at rest, its motion is set afterwards. */
function memberAhead(
  random: RandomStream,
  background: Scene['background'],
  said: ObjectSketch,
  total: number,
): Member | undefined {
  if (said.motion !== 'follow' || said.target === undefined) return undefined;
  const choices: Choices = { ...memberChoices(said), motions: ['still'] };
  const member = drawMember(random, background, choices, [], { count: total, alike: false });
  return member && { ...member, motion: { kind: 'follow', target: 0 } };
}

function memberChoices(said: ObjectSketch): Choices {
  const { shape, colour, size, finish, motion } = said;
  return {
    shapes: [shape],
    ...(colour === undefined ? {} : { colours: [colour] }),
    ...(size === undefined ? {} : { sizes: [size] }),
    ...(finish === undefined ? {} : { finishes: [finish] }),
    ...(motion === undefined ? {} : { motions: [motion] }),
  };
}

/** A drawn motion with the directions, pace and partner of the text; undefined when it has no use for them. */
function motionAsSaid(motion: Motion, said: ObjectSketch, starts: readonly number[]): Motion | undefined {
  const { direction, turn } = said;
  // Whoever says how it moves and not how fast means nothing special.
  const pace = said.pace ?? (said.motion === undefined ? undefined : 'steady');
  const target = said.target === undefined ? undefined : starts[said.target];
  switch (motion.kind) {
    case 'slide':
      return { ...motion, direction: direction ?? motion.direction };
    case 'bounce': {
      const way = direction ?? (said.motion === 'bounce' ? 'in place' : motion.direction);
      return { ...motion, direction: way, pace: pace ?? motion.pace };
    }
    case 'orbit': {
      const around = target ?? (said.motion === 'orbit' ? null : motion.around);
      return { ...motion, turn: turn ?? motion.turn, pace: pace ?? motion.pace, around };
    }
    case 'spin':
      return { ...motion, turn: turn ?? motion.turn, pace: pace ?? motion.pace };
    case 'blink':
      return { ...motion, pace: pace ?? motion.pace };
    case 'follow':
      return { ...motion, target: target ?? motion.target };
    default:
      return motion;
  }
}

/** Whether objects are on the sides, in the air and lie to each other as the text says. */
function liesAsSaid(scene: Scene, sketch: Sketch, starts: readonly number[]): boolean {
  return sketch.objects.every(({ side, airborne, relation }, i) => {
    const index = starts[i] ?? 0;
    const high = (scene.objects[index]?.position.height ?? 0) >= 0.1;
    const other = relation === undefined ? undefined : starts[relation.to];
    return (
      (side === undefined || sideOf(scene, index) === side) &&
      (airborne === undefined || airborne === high) &&
      (other === undefined || relationBetween(scene, index, other) === relation?.kind)
    );
  });
}
