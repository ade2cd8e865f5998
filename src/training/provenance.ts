import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type Recipe, recipeDigest } from './recipe.ts';

/** What a model file says of its origin. */
export interface Origin {
  readonly recipe: Recipe;
  /** The recipe's file. */
  readonly file: string;
  /** The command line, without the program's own path. */
  readonly command: string;
  readonly steps: number;
  /** Digest of the model file whose weights it began with. */
  readonly from?: string | undefined;
}

/** The provenance of a model: recipe, its digest, commit, command, date, steps, device. */
export async function provenanceOf(origin: Origin, device: string): Promise<Record<string, string>> {
  const { recipe, file, command, steps, from } = origin;
  return {
    recipe: JSON.stringify(recipe),
    recipeFile: file,
    recipeDigest: recipeDigest(recipe),
    commit: await currentCommit(),
    command,
    date: new Date().toISOString(),
    steps: String(steps),
    data: `${recipe.data.kind}, ${recipe.data.split} split, seed ${recipe.data.seed}`,
    device,
    ...(from !== undefined && { from }),
  };
}

/** Names the commit where the source was copied without its history, as on a GPU host. */
const commitVariable = 'ZOETROPE_COMMIT';

/** The commit of the source, where it runs from a clone that has git, or as the environment says. */
async function currentCommit(): Promise<string> {
  const told = process.env[commitVariable];
  if (told !== undefined) return told;
  try {
    const { stdout } = await promisify(execFile)('git', ['rev-parse', 'HEAD'], { cwd: import.meta.dirname });
    return stdout.trim();
  } catch {
    return 'unknown';
  }
}
