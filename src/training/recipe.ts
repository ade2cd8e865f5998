import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Choices } from '../data/worlds/sample.ts';
import {
  cameraKinds,
  colours,
  finishes,
  maxObjects,
  motionKinds,
  places,
  shapes,
  sizes,
  times,
  weathers,
} from '../data/worlds/scene.ts';
import { type Split, splits } from '../data/worlds/split.ts';
import { UserError } from '../errors.ts';
import { type AutoencoderLossWeights, autoencoderLossDefaults } from '../models/autoencoder/loss.ts';
import type { AdamSettings, Schedule } from './optimizer.ts';
import {
  anyObject,
  choice,
  integer,
  list,
  number,
  object,
  optional,
  type Schema,
  text,
  withDefault,
} from './schema.ts';

/** One size of clips and how often it is drawn. */
export interface Variant {
  /** Pixels, multiples of 8. */
  readonly width: number;
  readonly height: number;
  /** 1 + 4k; 1 is a still. */
  readonly frames: number;
  /** How often, relative to the other variants. Default 1. */
  readonly weight: number;
  /** Clips of a step where all of a step have one size (the autoencoder's training). Default 8. */
  readonly clips: number;
}

/** Procedural worlds to train on. */
export interface WorldsData {
  readonly kind: 'worlds';
  /** Decides which worlds. Default 0. */
  readonly seed: number;
  /** Default `train`. */
  readonly split: Split;
  /** Frames per second. Default 12. */
  readonly rate: number;
  /** Number of different clips; the latent cache holds so many. Default 20,000. */
  readonly clips: number;
  readonly variants: readonly Variant[];
  /** What may be drawn; default everything. */
  readonly choices: Choices | undefined;
}

/** The learning rate's course and the optimizer's settings: see `optimizer.ts` and `muon.ts`. */
export interface OptimizerRecipe extends Required<AdamSettings> {
  /** What moves matrices and kernels of blocks; AdamW moves everything else. With Muon `maxNorm` does not bear on them. */
  readonly method: 'adamw' | 'muon';
  readonly rate: number;
  readonly warmup: number;
  readonly floor: number;
}

/** How often things are written, in steps. */
export interface Intervals {
  /** Default 1000. */
  readonly checkpoint: number;
  /** Sample sheets; default 1000. */
  readonly sample: number;
  /** Lines of metrics; default 10. */
  readonly log: number;
}

/** What both recipes have. */
export interface CommonRecipe {
  /** Name of the model's preset. */
  readonly preset: string;
  /** Entries of the model's configuration that differ from the preset. */
  readonly overrides: Readonly<Record<string, unknown>>;
  readonly data: WorldsData;
  readonly steps: number;
  readonly optimizer: OptimizerRecipe;
  /** Share of the running average of weights that a step keeps. Default 0.999. */
  readonly ema: number;
  /** Decides initial weights, noise and the order of data. Default 0. */
  readonly seed: number;
  readonly intervals: Intervals;
}

/** How to train an autoencoder. */
export interface AutoencoderRecipe extends CommonRecipe {
  readonly model: 'autoencoder';
  /** Shares of the loss's terms; the reconstruction's own is 1. */
  readonly loss: Required<AutoencoderLossWeights>;
  /** Clips over which each latent channel's mean and deviation are measured at the end. Default 256. */
  readonly statisticsClips: number;
}

/** Static sizes of a packed step. */
export interface Budget {
  /** Rows, each a packed sequence. */
  readonly rows: number;
  /** Video tokens of a row. */
  readonly video: number;
  /** Text tokens of a row, 4 bytes each. */
  readonly text: number;
  /** Most clips of a row. */
  readonly segments: number;
}

/** How often each caption is shown, relative to the others. */
export interface CaptionMix {
  readonly short: number;
  readonly medium: number;
  readonly detailed: number;
  /** No caption, for classifier-free guidance. */
  readonly none: number;
}

/** Training on some of the tokens of each clip. */
export interface KeptTokens {
  /**
   * Share of a clip's tokens without objects that are kept, above 0: so many, rounded, but at least one; all tokens with
   * objects are. Which, is drawn anew each time a clip is seen. A token that is kept counts in the loss as it does
   * otherwise, not for those left out too: objects weigh the more, the fewer are kept beside them.
   */
  readonly background: number;
  /**
   * Copies of the places where objects are, elsewhere in the clip, whose tokens are kept too. Without any, where tokens are kept
   * shows where objects are to be, and placing them is left to be learnt from whole clips. Default 0.
   */
  readonly decoys: number;
  /**
   * Share of clips of which, in the place of decoys, all tokens are kept in whose part of the frame objects are at any time: where
   * tokens are kept does not show when an object is where. Default 0.
   */
  readonly swept: number;
  /** Share of the steps for which that holds; those after it see whole clips, as sampling does. */
  readonly until: number;
}

/** How to train a transformer. */
export interface TransformerRecipe extends CommonRecipe {
  readonly model: 'transformer';
  readonly budget: Budget;
  readonly captions: CaptionMix;
  /** Share of clips with known frames, for continuing and filling in. Default 0.3. */
  readonly known: number;
  /**
   * Weight in the loss that objects add to a token's own, which is 1: all of it where they cover a quarter of the token
   * or more, else in proportion. Objects are few tokens, and what is hard to learn of worlds is in them. Default 0.
   */
  readonly objects: number;
  /**
   * Which tokens training sees. Default: all. Clips are smaller then, so that more of them fill a row: they need text
   * tokens and segments of the budget.
   */
  readonly kept: KeptTokens | undefined;
  /**
   * Factor on how far timesteps are shifted toward noise for a clip's size, whether or not all its tokens are kept.
   * Sampling shifts as before. Default 1.
   */
  readonly timestepShift: number;
}

/** Either recipe. */
export type Recipe = AutoencoderRecipe | TransformerRecipe;

const among = <const T extends string>(options: readonly T[], what: string) =>
  optional(list(choice(options), 1, `${what} that may be drawn; default all.`));

const choices: Schema<Choices> = object<{ [K in keyof Choices]-?: Choices[K] | undefined }>(
  {
    shapes: among(shapes, 'Shapes'),
    colours: among(colours, 'Colours'),
    sizes: among(sizes, 'Sizes'),
    finishes: among(finishes, 'Finishes'),
    motions: among(motionKinds, 'Motions'),
    places: among(places, 'Places'),
    times: among(times, 'Times of day'),
    weathers: among(weathers, 'Weathers'),
    cameras: among(cameraKinds, 'Camera movements'),
    counts: optional(
      list(integer({ min: 1, max: maxObjects }, 'A number of objects.'), 1, 'Numbers of objects.'),
    ),
  },
  'What worlds may show.',
) as Schema<Choices>;

const multipleOf8 = (description: string): Schema<number> => {
  const base = integer({ min: 8, max: 4096 }, description);
  return {
    json: { ...base.json, multipleOf: 8 },
    read: (value, place) => {
      const side = base.read(value, place);
      if (side % 8 !== 0)
        throw new UserError(`${place.file}: ${place.path} ${side}: must be a multiple of 8`);
      return side;
    },
  };
};

const frames: Schema<number> = {
  json: { type: 'integer', minimum: 1, description: 'Frames, 1 + 4k; 1 is a still.' },
  read: (value, place) => {
    const count = integer({ min: 1, max: 10_001 }, '').read(value, place);
    if (count % 4 !== 1)
      throw new UserError(`${place.file}: ${place.path} ${count}: must be 1 + 4k, such as 25`);
    return count;
  },
};

const variant: Schema<Variant> = object<Variant>({
  width: multipleOf8('Pixels.'),
  height: multipleOf8('Pixels.'),
  frames,
  weight: withDefault(number({ above: 0 }, 'How often, relative to the other variants.'), 1),
  clips: withDefault(integer({ min: 1 }, 'Clips of a step (autoencoder only).'), 8),
});

const worlds: Schema<WorldsData> = object<WorldsData>(
  {
    kind: choice(['worlds']),
    seed: withDefault(integer({ min: 0 }, 'Decides which worlds.'), 0),
    split: withDefault(choice(splits, 'Half of the worlds.'), 'train'),
    rate: withDefault(number({ above: 0, max: 240 }, 'Frames per second.'), 12),
    clips: withDefault(integer({ min: 1 }, 'Number of different clips.'), 20_000),
    variants: list(variant, 1, 'Sizes of clips.'),
    choices: optional(choices),
  },
  'Procedural worlds, rendered in memory.',
);

const share = (description: string) => number({ min: 0, max: 1 }, description);
const weight = (description: string) => number({ min: 0 }, description);

const optimizer: Schema<OptimizerRecipe> = object<OptimizerRecipe>(
  {
    method: withDefault(
      choice(['adamw', 'muon'], 'What moves matrices and kernels of blocks; AdamW moves everything else.'),
      'adamw',
    ),
    rate: number({ above: 0 }, 'Highest learning rate.'),
    warmup: withDefault(integer({ min: 0 }, 'Steps of the rise at the start.'), 0),
    floor: withDefault(share('Learning rate at the end, as a share of the highest.'), 0),
    beta1: withDefault(share('Decay of the mean of gradients.'), 0.9),
    beta2: withDefault(share('Decay of the mean of squared gradients.'), 0.95),
    epsilon: withDefault(number({ above: 0 }, 'Added to the root of the mean square.'), 1e-8),
    weightDecay: withDefault(weight('Decay of matrices per unit of learning rate.'), 0),
    maxNorm: withDefault(number({ above: 0 }, 'Limit of the norm of the gradients.'), 1),
  },
  'AdamW, or Muon for matrices of blocks, and the learning rate: a rise in a straight line, then half a cosine down.',
);

const intervals: Schema<Intervals> = object<Intervals>(
  {
    checkpoint: withDefault(integer({ min: 1 }, 'Steps between checkpoints.'), 1000),
    sample: withDefault(integer({ min: 1 }, 'Steps between sample sheets.'), 1000),
    log: withDefault(integer({ min: 1 }, 'Steps between lines of metrics.'), 10),
  },
  'How often things are written.',
);

const common: {
  readonly [K in keyof CommonRecipe]-?: Schema<CommonRecipe[K]>;
} = {
  preset: text("Name of the model's preset."),
  overrides: withDefault(anyObject("Entries of the model's configuration that differ from the preset."), {}),
  data: worlds,
  steps: integer({ min: 1 }, 'Steps of the whole training.'),
  optimizer,
  ema: withDefault(share('Share of the running average of weights that a step keeps.'), 0.999),
  seed: withDefault(integer({ min: 0 }, 'Decides initial weights, noise and the order of data.'), 0),
  intervals: withDefault(intervals, { checkpoint: 1000, sample: 1000, log: 10 }),
};

/** The form of an autoencoder's recipe. */
export const autoencoderRecipeSchema: Schema<AutoencoderRecipe> = object<AutoencoderRecipe>(
  {
    model: choice(['autoencoder']),
    ...common,
    loss: withDefault(
      object({
        square: withDefault(weight('Share of the squared error.'), autoencoderLossDefaults.square),
        gradient: withDefault(
          weight('Share of differences between neighbours.'),
          autoencoderLossDefaults.gradient,
        ),
        kl: withDefault(
          weight('Share of the divergence from a standard normal distribution.'),
          autoencoderLossDefaults.kl,
        ),
      }),
      autoencoderLossDefaults,
    ),
    statisticsClips: withDefault(integer({ min: 1 }, 'Clips over which latents are measured.'), 256),
  },
  'How zoetrope train autoencoder trains.',
);

/** The form of a transformer's recipe. */
export const transformerRecipeSchema: Schema<TransformerRecipe> = object<TransformerRecipe>(
  {
    model: choice(['transformer']),
    ...common,
    budget: object<Budget>(
      {
        rows: integer({ min: 1 }, 'Packed sequences of a step.'),
        video: integer({ min: 1 }, 'Video tokens of a row.'),
        text: integer({ min: 1 }, 'Text tokens of a row, 4 bytes each.'),
        segments: integer({ min: 1 }, 'Most clips of a row.'),
      },
      'Static sizes of a step.',
    ),
    captions: withDefault(
      object<CaptionMix>(
        {
          short: weight('A line, as someone would type.'),
          medium: weight('Every object with what it does.'),
          detailed: weight('Everything.'),
          none: weight('No caption, for guidance.'),
        },
        'How often each caption is shown, relative to the others.',
      ),
      { short: 0.45, medium: 0.25, detailed: 0.2, none: 0.1 },
    ),
    known: withDefault(share('Share of clips with known frames.'), 0.3),
    objects: withDefault(
      weight(
        "Weight in the loss that objects add to a token's own, 1, where they cover a quarter of it or more.",
      ),
      0,
    ),
    kept: optional(
      object<KeptTokens>(
        {
          background: number(
            { above: 0, max: 1 },
            "Share of a clip's tokens without objects that are kept; all with objects are.",
          ),
          decoys: withDefault(
            integer({ min: 0, max: 8 }, 'Copies elsewhere of the places where objects are, kept as well.'),
            0,
          ),
          swept: withDefault(
            share(
              'Share of clips of which places are kept, instead of decoys, in which objects are at any time.',
            ),
            0,
          ),
          until: share('Share of the steps for which that holds; those after it see whole clips.'),
        },
        'Training on some of the tokens of each clip; default all.',
      ),
    ),
    timestepShift: withDefault(
      number({ above: 0 }, "Factor on timesteps' shift toward noise; sampling shifts as before."),
      1,
    ),
  },
  'How zoetrope train transformer trains.',
);

/** A recipe's form as the JSON Schema that editors read: the files `recipes/*.schema.json`. */
export function publishedSchema({ json }: Schema<Recipe>): object {
  const properties = { $schema: { type: 'string' }, ...(json.properties as object) };
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...json, properties };
}

/**
 * Reads an autoencoder's recipe.
 * @throws UserError, one line naming the file and the first value that is wrong.
 */
export async function readAutoencoderRecipe(file: string): Promise<AutoencoderRecipe> {
  return autoencoderRecipeSchema.read(await readJson(file), { file, path: '' });
}

/**
 * Reads a transformer's recipe.
 * @throws UserError, one line naming the file and the first value that is wrong.
 */
export async function readTransformerRecipe(file: string): Promise<TransformerRecipe> {
  const recipe = transformerRecipeSchema.read(await readJson(file), { file, path: '' });
  if (Object.values(recipe.captions).every((value) => value === 0)) {
    throw new UserError(`${file}: captions: every share is 0; give one of them more`);
  }
  return recipe;
}

/** The learning rate's course of a recipe. */
export function scheduleOf({ optimizer: { rate, warmup, floor }, steps }: CommonRecipe): Schedule {
  return { rate, warmup, floor, steps };
}

/**
 * Options that recipes did not always have, each with the value that trains as was trained before it. An option that is
 * added joins them.
 */
const added: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['method', 'adamw'],
  ['objects', 0],
  ['kept', undefined],
  ['decoys', 0],
  ['swept', 0],
  ['timestepShift', 1],
]);

/**
 * Digest of what decides a training's curve: 16 hexadecimal digits. `intervals` do not count, so that a run may be
 * resumed with others; nor do options {@link added} later that are left at their default, so that a recipe's digest, its
 * checkpoints and the provenance of its weights outlive them.
 */
export function recipeDigest(recipe: Recipe): string {
  const { intervals: _intervals, ...deciding } = recipe;
  const content = JSON.stringify(deciding, (name, value: unknown) =>
    added.has(name) && added.get(name) === value ? undefined : value,
  );
  return createHash('sha256').update(content).digest('hex').slice(0, 16);
}

async function readJson(file: string): Promise<unknown> {
  const content = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UserError(`${file}: the recipe cannot be read (${error.code}); check the path`);
  });
  try {
    return JSON.parse(content);
  } catch (error) {
    throw new UserError(`${file}: is no JSON (${error instanceof Error ? error.message : error}); mend it`);
  }
}
