import { describe } from '../data/worlds/caption.ts';
import { imagine } from '../data/worlds/imagine.ts';
import { interpret } from '../data/worlds/interpret.ts';
import { UserError } from '../errors.ts';
import { fold, keyFromSeed } from '../random/philox.ts';

/**
 * A short prompt in the detailed form of training's captions: what it says is kept, what it leaves open (sizes, paces,
 * weather, where things are) is chosen by the seed, as a scene that can be shown. "a red ball bounces" may become "A
 * medium-sized red ball bounces up and down in the city by day under a clear sky. The camera stands still."
 *
 * @returns undefined when the prompt names no shape of the worlds, or says what no world can show together: it is then
 * better left alone.
 */
export function expandForWorlds(prompt: string, seed: number): string | undefined {
  if (interpret(prompt).objects.length === 0) return undefined;
  const key = fold(keyFromSeed(seed), 'expand prompt');
  try {
    return describe(imagine(prompt, key), 'detailed', key);
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}
