import type { LoadedCommand } from './command.ts';

/** A command that is loaded when it is called. */
export type CommandEntry = {
  /** One line for the list of commands. */
  readonly summary: string;
  load(): Promise<LoadedCommand>;
};

/** Commands under a common word, such as `dataset check` and `dataset worlds`. */
export type CommandGroup = {
  readonly summary: string;
  readonly commands: { readonly [name: string]: CommandEntry };
};

/** Every command of the program, by name, in the order of the help. */
export const commands: { readonly [name: string]: CommandEntry | CommandGroup } = {
  generate: {
    summary: 'Make a video or a still from a prompt',
    load: async () => (await import('./generate.ts')).generateCommand,
  },
  extend: {
    summary: 'Make a video longer, at its end or its beginning',
    load: async () => (await import('./extend.ts')).extendCommand,
  },
  join: {
    summary: 'Make two videos one, with new frames between them',
    load: async () => (await import('./join.ts')).joinCommand,
  },
  loop: {
    summary: 'Make a video endless, with new frames from its end to its beginning',
    load: async () => (await import('./loop.ts')).loopCommand,
  },
  dataset: {
    summary: 'Check or make training clips',
    commands: {
      check: {
        summary: 'Say what training would do with every clip, and why',
        load: async () => (await import('./dataset-check.ts')).datasetCheck,
      },
      worlds: {
        summary: 'Make procedural clips with exact captions',
        load: async () => (await import('./dataset-worlds.ts')).datasetWorlds,
      },
    },
  },
  evaluate: {
    summary: 'Measure how well a model does what prompts say',
    load: async () => (await import('./evaluate.ts')).evaluateCommand,
  },
  train: {
    summary: 'Train the models by recipes',
    commands: {
      autoencoder: {
        summary: 'Train the network that compresses videos',
        load: async () => (await import('./train-autoencoder.ts')).trainAutoencoder,
      },
      cache: {
        summary: "Encode a transformer's clips once",
        load: async () => (await import('./train-cache.ts')).trainCache,
      },
      transformer: {
        summary: 'Train the network that makes videos',
        load: async () => (await import('./train-transformer.ts')).trainTransformer,
      },
    },
  },
  doctor: {
    summary: 'Say what this machine offers, and which models are there',
    load: async () => (await import('./doctor.ts')).doctorCommand,
  },
};
