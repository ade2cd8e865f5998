import type { RandomStream } from '../../random/philox.ts';
import {
  colourWords,
  finishWords,
  numberWords,
  paceWords,
  placePhrases,
  pluralOf,
  shapeNouns,
  sizeWords,
  type Verb,
  verbs,
} from './lexicon.ts';
import type { Camera, Motion, Pace, Scene, SceneObject, Turn } from './scene.ts';

/** Objects that a caption mentions together, because nothing that it could say tells them apart. */
export interface Mention {
  /** Their indexes in the scene. */
  readonly indexes: readonly number[];
  /** The first of them. */
  readonly object: SceneObject;
  /** The words that the caption uses for their shape and colour, every time. */
  readonly noun: string;
  readonly colour: string;
}

/** Which attributes a phrase names beside colour and shape. */
export interface Naming {
  readonly size: boolean;
  readonly finish: boolean;
}

/** How much a predicate tells: how it moves at all, with directions, or everything. */
export interface Telling {
  /** Probability of naming a direction or turn. */
  readonly direction: number;
  /** Probability of naming a pace that is not steady. */
  readonly pace: number;
  /** How other objects are referred to. */
  refer(index: number): string;
}

/** Height from which an object at rest hangs in the air. */
const airborne = 0.1;

/** Groups alike objects; those that others relate to come before those. */
export function mentionsOf(random: RandomStream, scene: Scene): Mention[] {
  const groups = new Map<string, { indexes: number[]; object: SceneObject }>();
  for (const [i, object] of scene.objects.entries()) {
    const { shape, colour, size, finish, motion } = object;
    const { phase: _, ...told } = { phase: 0, ...motion };
    // What others relate to is mentioned alone, so that "the red ball" is one ball.
    const related = scene.objects.some(({ motion: other }) => targetOf(other) === i);
    const key = JSON.stringify([shape, colour, size, finish, told, isAirborne(object), related ? i : -1]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { indexes: [i], object });
    else group.indexes.push(i);
  }
  const relates = ({ object }: Mention) => (targetOf(object.motion) === undefined ? 0 : 1);
  return [...groups.values()]
    .map((group) => ({
      ...group,
      noun: random.pick(shapeNouns[group.object.shape]),
      colour: random.pick(colourWords[group.object.colour]),
    }))
    .sort((a, b) => relates(a) - relates(b));
}

/** The index of the object that a motion relates to, if any. */
export function targetOf(motion: Motion): number | undefined {
  if (motion.kind === 'follow') return motion.target;
  return motion.kind === 'orbit' && motion.around !== null ? motion.around : undefined;
}

/** Whether an object is off the ground all the time, or moves in the air. */
export function isAirborne({ motion, position }: SceneObject): boolean {
  if (motion.kind === 'fall' || motion.kind === 'rise' || motion.kind === 'orbit') return true;
  return motion.kind !== 'bounce' && motion.kind !== 'follow' && position.height >= airborne;
}

/** "a small striped red ball", or "three small red balls with stripes". */
export function nounPhrase(random: RandomStream, mention: Mention, naming: Naming): string {
  const { size, finish } = mention.object;
  const { noun, colour } = mention;
  const count = mention.indexes.length;
  const after = naming.finish && finish === 'striped' && random.uniform() < 0.25;
  const adjectives = [
    ...(naming.size ? [random.pick(sizeWords[size])] : []),
    ...(naming.finish && !after ? [random.pick(finishWords[finish])] : []),
    colour,
  ];
  const tail = after ? ' with stripes' : '';
  if (count > 1) return `${numberWords[count]} ${adjectives.join(' ')} ${pluralOf(noun)}${tail}`;
  return `${withArticle([...adjectives, noun].join(' '))}${tail}`;
}

/** "the red ball". */
export function reference({ colour, noun }: Mention): string {
  return `the ${colour} ${noun}`;
}

function withArticle(words: string): string {
  return `${/^[aeiou]/.test(words) ? 'an' : 'a'} ${words}`;
}

/** What the objects of a mention do, as a verb and the words after it. */
export function predicate(
  random: RandomStream,
  { object }: Mention,
  telling: Telling,
): { readonly verb: Verb; readonly tail: string } {
  const { motion } = object;
  const names = (probability: number) => random.uniform() < probability;
  const paced = (pace: Pace) => {
    const told = pace === 'steady' ? names(0.12 * telling.pace) : names(telling.pace);
    return told ? random.pick(paceWords[pace]) : '';
  };
  const turned = (turn: Turn) => {
    if (!names(telling.direction)) return '';
    return turn === 'clockwise' ? 'clockwise' : random.pick(['counterclockwise', 'anticlockwise']);
  };
  const towards = (direction: 'left' | 'right') => {
    if (!names(telling.direction)) return '';
    const from = direction === 'right' ? 'left' : 'right';
    return random.pick([`to the ${direction}`, `to the ${direction}`, `from ${from} to ${direction}`]);
  };
  switch (motion.kind) {
    case 'still':
      return { verb: random.pick(isAirborne(object) ? verbs.hang : verbs.rest), tail: '' };
    case 'slide': {
      const rolls = object.shape === 'ball' || object.shape === 'ring';
      const kinds = isAirborne(object) ? verbs.drift : rolls ? verbs.roll : verbs.slide;
      return { verb: random.pick<Verb>(kinds), tail: towards(motion.direction) };
    }
    case 'bounce': {
      const way =
        motion.direction === 'in place'
          ? random.pick(['up and down', 'up and down', 'in place', ''])
          : towards(motion.direction);
      return { verb: random.pick(verbs.bounce), tail: join(way, paced(motion.pace)) };
    }
    case 'orbit': {
      const target = motion.around === null ? random.pick(['in the air', '']) : telling.refer(motion.around);
      const verb = random.pick<Verb>(motion.around === null ? verbs.circle : verbs.orbit);
      const turn = turned(motion.turn);
      const tail = motion.around === null ? join(turn, target) : join(target, turn);
      return { verb, tail: join(tail, paced(motion.pace)) };
    }
    case 'spin':
      return { verb: random.pick(verbs.spin), tail: join(turned(motion.turn), paced(motion.pace)) };
    case 'blink':
      return { verb: random.pick(verbs.blink), tail: paced(motion.pace) };
    case 'grow':
      return { verb: random.pick(verbs.grow), tail: random.pick(['', '', 'in size']) };
    case 'shrink':
      return { verb: random.pick(verbs.shrink), tail: random.pick(['', '', 'in size']) };
    case 'fall':
      return { verb: random.pick(verbs.fall), tail: random.pick(['', 'down', 'from the sky']) };
    case 'rise':
      return { verb: random.pick(verbs.rise), tail: random.pick(['', 'into the air', 'into the sky']) };
    case 'follow':
      return { verb: random.pick(verbs.follow), tail: telling.refer(motion.target) };
  }
}

/** Words with one space between them, empty ones left out. */
export function join(...words: readonly string[]): string {
  return words.filter((word) => word !== '').join(' ');
}

/** Where the scene is, in words that are true of all the mentioned objects. */
export function placePhrase(random: RandomStream, scene: Scene, mentions: readonly Mention[]): string {
  const { on, at } = placePhrases[scene.background.place];
  const flying = mentions.filter(({ object }) => isAirborne(object)).length;
  if (flying === 0) return random.pick(on);
  if (flying === mentions.length) return random.pick(at);
  return random.pick(on.filter((phrase) => at.includes(phrase)));
}

/** A sentence about the camera, without its end. */
export function cameraSentence(random: RandomStream, camera: Camera): string {
  switch (camera.kind) {
    case 'still':
      return random.pick(['the camera is still', 'the camera does not move', 'the camera stays still']);
    case 'pan':
      return random.pick([
        `the camera pans to the ${camera.direction}`,
        `the camera pans ${camera.direction}`,
        `the camera slowly pans to the ${camera.direction}`,
      ]);
    case 'zoom':
      return random.pick([
        `the camera zooms ${camera.direction}`,
        `the camera slowly zooms ${camera.direction}`,
      ]);
    case 'shake':
      return random.pick([
        'the camera shakes',
        'the camera is shaky',
        'the camera shakes as if held by hand',
      ]);
  }
}
