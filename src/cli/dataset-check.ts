import { UserError } from '../errors.ts';
import { defineCommand } from './command.ts';

/** `zoetrope dataset check`: the dataset preflight. */
export const datasetCheck = defineCommand({
  description: 'Say, for every clip of a dataset, what training would do with it and why.',
  positionals: [{ name: 'PATH', help: 'A folder of clips, or a manifest (JSON Lines)' }],
  options: {
    json: { type: 'boolean', help: 'Print the report as JSON' },
  },
  example: 'zoetrope dataset check ./clips',
  run: async () => {
    throw new UserError('dataset check is being built; use a later version');
  },
});
