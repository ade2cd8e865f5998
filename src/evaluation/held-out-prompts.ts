import { captionsOf } from '../data/worlds/caption.ts';
import { interpret } from '../data/worlds/interpret.ts';
import { type Choices, sampleScene } from '../data/worlds/sample.ts';
import type { Scene } from '../data/worlds/scene.ts';
import { fold, keyFromSeed, RandomStream } from '../random/philox.ts';

/** What is asked of a model, with the truth beside it. */
export interface HeldOutPrompt {
  /** In the words of captions. */
  readonly prompt: string;
  /** A scene that the prompt describes; what the prompt leaves open is one of many ways to show it. */
  readonly scene: Scene;
  /** What of the scene the prompt says, so that it can be asked for. */
  readonly says: Said;
}

/** Which parts of a scene a prompt says. Colour and shape it always does. */
export interface Said {
  readonly place: boolean;
  readonly time: boolean;
  /** What every object does. */
  readonly motion: boolean;
  /** Which way every object goes or turns that goes or turns any way. */
  readonly direction: boolean;
}

/** How to draw prompts. */
export interface PromptOptions {
  readonly seed: number;
  readonly count: number;
  /** Duration of the scenes in seconds; default 25 frames at 12 a second. */
  readonly seconds?: number;
  /** Of so many prompts one has two objects; the others have one. Default 5. */
  readonly twoObjectsEvery?: number;
  /** What scenes may show beside their number of objects; default still cameras and clear weather. */
  readonly choices?: Omit<Choices, 'counts'>;
}

/**
 * Prompts for worlds whose combination of shape, colour, motion and place never occurs in training (for two objects: of
 * one of them at least), in the wording of short and medium captions by turns. The same options give the same prompts,
 * and the first of more.
 */
export function heldOutPrompts(options: PromptOptions): HeldOutPrompt[] {
  return Array.from({ length: options.count }, (_, index) => heldOutPrompt(options, index));
}

function heldOutPrompt(
  { seed, seconds = 25 / 12, twoObjectsEvery = 5, choices = {} }: PromptOptions,
  index: number,
): HeldOutPrompt {
  const key = fold(fold(keyFromSeed(seed), 'held-out prompts'), index);
  const counts = index % twoObjectsEvery === twoObjectsEvery - 1 ? [2] : [1];
  const open: Choices = { cameras: ['still'], weathers: ['clear'], ...choices, counts };
  const scene = sampleScene(fold(key, 'scene'), { seconds, split: 'held-out', choices: open });
  const captions = captionsOf(scene, fold(key, 'words'));
  const prompt = new RandomStream(fold(key, 'level')).int(2) === 0 ? captions.short : captions.medium;
  return { prompt, scene, says: whatIsSaid(prompt, scene) };
}

/** Reads a caption of a scene back. */
function whatIsSaid(prompt: string, scene: Scene): Said {
  const { objects, place, time } = interpret(prompt);
  const everyone = objects.reduce((sum, { count }) => sum + count, 0) === scene.objects.length;
  // Someone who says where to go says how often it is asked, not of whom: the two lists agree as a whole or not at all.
  const ways = scene.objects.filter(({ motion }) => goesSomeWay(motion)).length;
  const told = objects
    .filter(({ direction, turn }) => direction !== undefined || turn !== undefined)
    .reduce((sum, { count }) => sum + count, 0);
  return {
    place: place !== undefined,
    time: time !== undefined,
    motion: everyone && objects.every(({ motion }) => motion !== undefined),
    direction: ways > 0 && told === ways,
  };
}

function goesSomeWay(motion: Scene['objects'][number]['motion']): boolean {
  if ('turn' in motion) return true;
  return 'direction' in motion && motion.direction !== 'in place';
}
