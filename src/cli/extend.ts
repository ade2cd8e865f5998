import { planExtend } from '../pipeline/edit.ts';
import { defineCommand } from './command.ts';
import { editOptions, editRequest, openGiven, preparedEdit } from './edit-options.ts';
import { makeVideo } from './make-video.ts';

/** `zoetrope extend`. */
export const extendCommand = defineCommand({
  description: `Make a video longer: new frames follow its last ones, or with --backward lead to its first ones. Its own
frames stay as they are.

Exit code 0: the file is there. 1: the model, a file, the device or the place was at fault. 2: a value was.`,
  positionals: [
    { name: 'VIDEO', help: 'File to go on from' },
    { name: 'PROMPT', help: 'What the new frames show', optional: true },
  ],
  options: { ...editOptions, backward: { type: 'boolean', help: 'New frames come before the video' } },
  example: "zoetrope extend ball.mp4 'a red ball bounces on green grass' --seconds 2 --out longer.mp4",
  async run({ values, positionals: [path = '', prompt = ''], terminal }) {
    const request = editRequest(prompt, values);
    return await makeVideo('zoetrope extend', values, terminal, async (workshop) => {
      const video = await openGiven(workshop, values, path);
      return await preparedEdit(workshop, [video], (hooks) =>
        planExtend(workshop.model, { ...request, video, backward: values.backward }, hooks),
      );
    });
  },
});
