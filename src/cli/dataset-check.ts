import { availableParallelism } from 'node:os';

import { checkWritable, writeFileAtomic } from '../atomic-file.ts';
import { checkDataset } from '../data/preflight/check.ts';
import { reportPage } from '../data/preflight/html.ts';
import { describeWindow, formatReport } from '../data/preflight/text.ts';
import { defaultWindow, readRecipeWindow } from '../data/window.ts';
import { requireFfmpeg } from '../video/ffmpeg-package.ts';
import { MediaReader } from '../video/read.ts';
import { defineCommand, numberOption } from './command.ts';

import { createProgress } from './progress.ts';

/** `zoetrope dataset check`: the dataset preflight. */
export const datasetCheck = defineCommand({
  description: `Say, for every clip of a dataset, what training would do with it and why: kept whole, trimmed at its end,
cut into windows, re-timed or skipped. Decodes every frame, so that damage is found now and not at hour three.

PATH is a folder of clips (clip.mp4 with its caption in clip.txt), a folder with a manifest.jsonl or captions.jsonl,
a folder of such folders, or a manifest. A recipe is a JSON file such as
{"window": {"maxFrames": 33, "rate": 16, "maxPixels": 36864, "minSeconds": 1, "stride": {"time": 4, "space": 16}}};
what it leaves out, or having none, means
${describeWindow(defaultWindow)}.

Exit code 0: nothing wrong. 1: the report has errors (damaged files, wrong manifest lines), or could not be made.`,
  positionals: [{ name: 'PATH', help: 'A folder of clips, or a manifest (JSON Lines)' }],
  options: {
    'plan-for': {
      type: 'string',
      value: 'RECIPE',
      help: 'Plan for the "window" of this recipe, in place of the default',
    },
    all: { type: 'boolean', help: 'List every clip and every problem' },
    json: { type: 'boolean', help: 'Print the report as JSON' },
    html: { type: 'string', value: 'FILE', help: 'Write a page with a picture of every clip' },
    processes: { type: 'string', value: 'N', help: 'Files decoded at once (default: one for each core)' },
  },
  example: 'zoetrope dataset check ./clips --html report.html',
  async run({ values, positionals: [path = ''], terminal }) {
    requireFfmpeg('zoetrope dataset check', '');
    const window =
      values['plan-for'] === undefined ? defaultWindow : await readRecipeWindow(values['plan-for']);
    const processes =
      values.processes === undefined
        ? availableParallelism()
        : numberOption('processes', values.processes, { min: 1, max: 256, integer: true });
    if (values.html !== undefined) await checkWritable(values.html);

    await using reader = new MediaReader({ processes });
    let progress: ReturnType<typeof createProgress> | undefined;
    const checked = checkDataset(path, {
      window,
      reader,
      processes,
      thumbnails: values.html !== undefined,
      signal: terminal.signal,
      onProgress: (done, total) => {
        progress ??= createProgress(terminal, { label: 'decoding', total, unit: 'files' });
        progress.update(done);
      },
    });
    const { report, thumbnails } = await checked.catch((error: unknown) => {
      progress?.[Symbol.dispose]();
      throw error;
    });
    progress?.finish();

    if (values.html !== undefined) await writeFileAtomic(values.html, reportPage(report, thumbnails));
    const { stdout } = terminal;
    const color = stdout.isTTY === true && process.env.NO_COLOR === undefined;
    const text = values.json
      ? `${JSON.stringify(report)}\n`
      : formatReport(report, { width: stdout.columns ?? 100, color, all: values.all });
    stdout.write(text);
    if (values.html !== undefined && !values.json) stdout.write(`\nWrote ${values.html}\n`);
    return report.problems.some(({ severity }) => severity === 'error') ? 1 : 0;
  },
});
