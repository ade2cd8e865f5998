import { planJoin } from '../pipeline/edit.ts';
import { defineCommand } from './command.ts';
import { editOptions, editRequest, openGiven, preparedEdit } from './edit-options.ts';
import { makeVideo } from './make-video.ts';

/** `zoetrope join`. */
export const joinCommand = defineCommand({
  description: `Make two videos one: new frames lead from the end of A to the beginning of B, whose frames stay as they
are. B is read in the size of A.

Exit code 0: the file is there. 1: the model, a file, the device or the place was at fault. 2: a value was.`,
  positionals: [
    { name: 'A', help: 'File that comes first' },
    { name: 'B', help: 'File that comes second' },
    { name: 'PROMPT', help: 'What the new frames show', optional: true },
  ],
  options: editOptions,
  example: 'zoetrope join morning.mp4 evening.mp4 --seconds 1 --out day.mp4',
  async run({ values, positionals: [a = '', b = '', prompt = ''], terminal }) {
    const request = editRequest(prompt, values);
    return await makeVideo('zoetrope join', values, terminal, async (workshop) => {
      const first = await openGiven(workshop, values, a);
      const second = await openGiven(workshop, values, b, first);
      return await preparedEdit(workshop, [first, second], (hooks) =>
        planJoin(workshop.model, { ...request, first, second }, hooks),
      );
    });
  },
});
