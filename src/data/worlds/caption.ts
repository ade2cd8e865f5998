import { fold, type Key, RandomStream } from '../../random/philox.ts';
import { relationBetween, sideOf } from './ground-truth.ts';
import { timePhrases, weatherPhrases } from './lexicon.ts';
import {
  cameraSentence,
  join,
  type Mention,
  mentionsOf,
  type Naming,
  nounPhrase,
  placePhrase,
  predicate,
  reference,
  type Telling,
  targetOf,
} from './phrases.ts';
import type { Scene } from './scene.ts';

/** Levels of detail of captions of worlds. */
export const detailLevels = ['short', 'medium', 'detailed'] as const;
/** One of {@link detailLevels}. */
export type DetailLevel = (typeof detailLevels)[number];

/**
 * A caption of a scene in one of many wordings, which the key chooses. Whatever it says is true of every frame size.
 *
 * - `short`: what someone would type, such as "a red ball bounces on green grass at sunset"; may leave much out.
 * - `medium`: every object with its colour, shape and motion, and the place and time.
 * - `detailed`: all of that with sizes, finishes, paces, weather, camera, and where objects are.
 */
export function describe(scene: Scene, level: DetailLevel, key: Key): string {
  const random = new RandomStream(fold(key, `caption ${level}`));
  switch (level) {
    case 'short':
      return describeShortly(random, scene);
    case 'medium':
      return describeInPart(random, scene);
    case 'detailed':
      return describeFully(random, scene);
  }
}

/** The captions of a scene at every level. */
export function captionsOf(scene: Scene, key: Key): { readonly [L in DetailLevel]: string } {
  return {
    short: describe(scene, 'short', key),
    medium: describe(scene, 'medium', key),
    detailed: describe(scene, 'detailed', key),
  };
}

function describeShortly(random: RandomStream, scene: Scene): string {
  const mentions = mentionsOf(random, scene);
  const chance = (probability: number) => random.uniform() < probability;
  const name = (mention: Mention) => {
    const { finish } = mention.object;
    return nounPhrase(random, mention, { size: chance(0.2), finish: finish !== 'plain' && chance(0.5) });
  };
  const where = placePhrase(random, scene, mentions);
  const when = chance(0.65) ? timeOf(random, scene) : '';
  const weather = scene.background.weather !== 'clear' && chance(0.6) ? weatherOf(random, scene) : '';
  const setting = join(chance(0.88) ? where : '', when, weather);
  const telling = { direction: 0.7, pace: 0.25, refer: (i: number) => name(mentionWith(mentions, i)) };
  const subject = shortSubject(random, scene, mentions, name, telling);
  const camera =
    scene.camera.kind !== 'still' && chance(0.25) ? `, ${cameraSentence(random, scene.camera)}` : '';
  const text =
    setting !== '' && chance(0.15) ? `${setting}, ${subject}${camera}` : `${join(subject, setting)}${camera}`;
  return chance(0.2) ? `${capital(text)}.` : text;
}

/** The objects of a short caption: with what they do where that stays short. */
function shortSubject(
  random: RandomStream,
  scene: Scene,
  mentions: readonly Mention[],
  name: (mention: Mention) => string,
  telling: Telling,
): string {
  const [first, second] = mentions;
  const clause = (mention: Mention) => {
    const { verb, tail } = predicate(random, mention, telling);
    const form = random.uniform() < 0.3 ? verb.ing : numbered(verb, mention);
    return join(name(mention), form, tail);
  };
  if (first === undefined) return '';
  if (second === undefined) return clause(first);
  const mover = mentions.find(({ object }) => targetOf(object.motion) !== undefined);
  if (mover !== undefined && mentions.length === 2) return clause(mover);
  if (mentions.length === 2) {
    const relation = relationOf(scene, first, second);
    if (relation !== undefined && random.uniform() < 0.4) {
      return join(name(first), phraseOf(relation), name(second));
    }
    if (mover === undefined && random.uniform() < 0.6) return `${clause(first)} and ${clause(second)}`;
  }
  return listed(mentions.map(name));
}

function describeInPart(random: RandomStream, scene: Scene): string {
  const mentions = mentionsOf(random, scene);
  const chance = (probability: number) => random.uniform() < probability;
  const weather = scene.background.weather !== 'clear' ? weatherOf(random, scene) : '';
  const setting = join(placePhrase(random, scene, mentions.slice(0, 1)), timeOf(random, scene), weather);
  const clauses = mentions.map((mention) => {
    const naming = { size: chance(0.4), finish: mention.object.finish !== 'plain' };
    return clauseOf(random, mentions, mention, naming, { direction: 1, pace: 0.5 });
  });
  const fronted = chance(0.25);
  const [first = '', ...others] = clauses;
  const opening = fronted ? `${setting}, ${first}` : join(first, setting);
  const sentences =
    others.length === 1 && chance(0.5)
      ? [fronted ? `${opening} while ${others[0]}` : `${opening}, while ${others[0]}`]
      : [opening, ...(others.length > 0 ? [listed(others)] : [])];
  if (scene.camera.kind !== 'still') sentences.push(cameraSentence(random, scene.camera));
  return inSentences(sentences);
}

function describeFully(random: RandomStream, scene: Scene): string {
  const mentions = mentionsOf(random, scene);
  const chance = (probability: number) => random.uniform() < probability;
  const naming: Naming = { size: true, finish: true };
  const weather = scene.background.place === 'space' ? '' : weatherOf(random, scene);
  const apart = chance(0.4);
  const where = placePhrase(random, scene, apart ? mentions : mentions.slice(0, 1));
  const setting = join(where, timeOf(random, scene), weather);
  const clauses = mentions.map((mention, i) => {
    const clause = clauseOf(random, mentions, mention, naming, { direction: 1, pace: 1 });
    const position = positionOf(random, scene, mention, mentions.slice(0, i));
    return { clause, position };
  });
  const sentences = clauses.map(({ clause, position }, i) => {
    const placed = i === 0 && !apart ? join(clause, setting) : clause;
    return position === '' ? placed : `${placed}, ${position}`;
  });
  if (apart) {
    sentences.unshift(join(random.pick(['the scene is set', 'we are', 'the clip was filmed']), setting));
  }
  sentences.push(cameraSentence(random, scene.camera));
  return inSentences(sentences);
}

function clauseOf(
  random: RandomStream,
  mentions: readonly Mention[],
  mention: Mention,
  naming: Naming,
  told: Pick<Telling, 'direction' | 'pace'>,
): string {
  const refer = (index: number) => reference(mentionWith(mentions, index));
  const { verb, tail } = predicate(random, mention, { ...told, refer });
  return join(nounPhrase(random, mention, naming), numbered(verb, mention), tail);
}

/** How a single object lies to one mentioned before it, or else on which side of the picture it is. */
function positionOf(
  random: RandomStream,
  scene: Scene,
  mention: Mention,
  before: readonly Mention[],
): string {
  const index = mention.indexes[0];
  if (mention.indexes.length > 1 || index === undefined) return '';
  if (targetOf(mention.object.motion) !== undefined) return '';
  for (const other of [...before].reverse()) {
    const relation = relationOf(scene, mention, other);
    if (relation !== undefined) return `${phraseOf(relation)} ${reference(other)}`;
  }
  const side = sideOf(scene, index);
  if (side === undefined) return '';
  if (side === 'middle') return random.pick(['in the middle', 'in the centre of the picture']);
  return random.pick([`on the ${side} side`, `on the ${side} side of the picture`]);
}

function relationOf(scene: Scene, a: Mention, b: Mention) {
  const [i, j] = [a.indexes[0], b.indexes[0]];
  const single = a.indexes.length === 1 && b.indexes.length === 1;
  return single && i !== undefined && j !== undefined ? relationBetween(scene, i, j) : undefined;
}

function phraseOf(relation: NonNullable<ReturnType<typeof relationBetween>>): string {
  return relation === 'left of' || relation === 'right of' ? `to the ${relation}` : relation;
}

function timeOf(random: RandomStream, { background }: Scene): string {
  return background.place === 'space' ? '' : random.pick(timePhrases[background.time]);
}

function weatherOf(random: RandomStream, { background }: Scene): string {
  return random.pick(weatherPhrases[background.weather]);
}

function mentionWith(mentions: readonly Mention[], index: number): Mention {
  const found = mentions.find(({ indexes }) => indexes.includes(index));
  if (found === undefined) throw new RangeError(`object ${index} is not in the scene`);
  return found;
}

function numbered(verb: { readonly one: string; readonly many: string }, mention: Mention): string {
  return mention.indexes.length === 1 ? verb.one : verb.many;
}

function listed(items: readonly string[]): string {
  const last = items.at(-1) ?? '';
  return items.length < 2 ? last : `${items.slice(0, -1).join(', ')} and ${last}`;
}

function inSentences(sentences: readonly string[]): string {
  return sentences.map((sentence) => `${capital(sentence)}.`).join(' ');
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
