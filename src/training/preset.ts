import { UserError } from '../errors.ts';
import type { CommonRecipe } from './recipe.ts';

/**
 * A preset with a recipe's overrides laid over it; not checked further.
 * @param presets configurations by name.
 * @param file the recipe's, for messages.
 * @throws UserError for a preset or an entry that does not exist.
 */
export function presetOf<Config extends object>(
  presets: Readonly<Record<string, Config>>,
  { preset, overrides }: Pick<CommonRecipe, 'preset' | 'overrides'>,
  file: string,
): object {
  const base = Object.hasOwn(presets, preset) ? presets[preset] : undefined;
  if (base === undefined) {
    const names = Object.keys(presets).join(', ');
    throw new UserError(`${file}: preset ${JSON.stringify(preset)}: must be one of ${names}`);
  }
  for (const name of Object.keys(overrides)) {
    if (!Object.hasOwn(base, name)) {
      const names = Object.keys(base).join(', ');
      throw new UserError(`${file}: overrides.${name} is not known here; use ${names}`);
    }
  }
  return { ...base, ...overrides };
}
