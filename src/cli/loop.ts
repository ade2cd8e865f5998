import { planLoop } from '../pipeline/edit.ts';
import { defineCommand } from './command.ts';
import { editOptions, editRequest, openGiven, preparedEdit } from './edit-options.ts';
import { makeVideo } from './make-video.ts';

/** `zoetrope loop`. */
export const loopCommand = defineCommand({
  description: `Make a video endless: new frames after its last one lead back to its first, so that playing it round and
round shows no seam. Its own frames stay as they are.

Exit code 0: the file is there. 1: the model, a file, the device or the place was at fault. 2: a value was.`,
  positionals: [
    { name: 'VIDEO', help: 'File to make endless' },
    { name: 'PROMPT', help: 'What the new frames show', optional: true },
  ],
  options: editOptions,
  example: 'zoetrope loop ball.mp4 --seconds 1 --out endless.gif',
  async run({ values, positionals: [path = '', prompt = ''], terminal }) {
    const request = editRequest(prompt, values);
    return await makeVideo('zoetrope loop', values, terminal, async (workshop) => {
      const video = await openGiven(workshop, values, path);
      return await preparedEdit(workshop, [video], (hooks) =>
        planLoop(workshop.model, { ...request, video }, hooks),
      );
    });
  },
});
