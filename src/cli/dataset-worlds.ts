import { availableParallelism } from 'node:os';
import { splits } from '../data/worlds/split.ts';
import { mostWorlds, type WorldsPlan, writeWorlds } from '../data/worlds/write-worlds.ts';
import { defineCommand, numberOption, UsageError } from './command.ts';
import { createProgress } from './progress.ts';

/** `zoetrope dataset worlds`: procedural clips with exact captions. */
export const datasetWorlds = defineCommand({
  description: `Make a data set of procedural worlds: small scenes with moving objects, their captions exact in three
levels of detail, and the truth about every frame (positions, boxes). The same seed gives the same clips. One in ten
combinations of shape, colour, motion and place appears only in the held-out split.

Writes DIR/clips, DIR/manifest.jsonl and DIR/truth.jsonl; stopped with Ctrl-C, the same command takes up where it was.

Exit code 0: all clips are there. 1: stopped, or they could not be written.`,
  positionals: [],
  options: {
    count: { type: 'string', value: 'N', help: 'Number of clips', default: '100' },
    out: { type: 'string', value: 'DIR', help: 'Folder to write, made if missing (required)' },
    size: { type: 'string', value: 'WxH', help: 'Frame size in pixels, even', default: '64x64' },
    seconds: { type: 'string', value: 'S', help: 'Duration of each clip', default: '2' },
    fps: { type: 'string', value: 'F', help: 'Frames per second', default: '16' },
    seed: { type: 'string', value: 'K', help: 'Seed of the data set', default: '0' },
    split: { type: 'string', value: 'SPLIT', help: 'train or held-out', default: 'train' },
  },
  example: 'zoetrope dataset worlds --count 1000 --out ./worlds',
  async run({ values, terminal }) {
    if (values.out === undefined) throw new UsageError('zoetrope dataset worlds: --out DIR is missing');
    const split = splits.find((name) => name === values.split);
    if (split === undefined) {
      throw new UsageError(`zoetrope: --split must be ${splits.join(' or ')}, got '${values.split}'`);
    }
    const plan: WorldsPlan = {
      count: numberOption('count', values.count, { min: 1, max: mostWorlds, integer: true }),
      ...readSize(values.size),
      seconds: numberOption('seconds', values.seconds, { min: 0.05, max: 60 }),
      rate: numberOption('fps', values.fps, { min: 1, max: 120 }),
      seed: numberOption('seed', values.seed, { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }),
      split,
    };
    using progress = createProgress(terminal, { label: 'making', total: plan.count, unit: 'clips' });
    const { written, kept, complete } = await writeWorlds(values.out, plan, {
      concurrency: availableParallelism(),
      signal: terminal.signal,
      onProgress: (done) => progress.update(done),
    });
    progress.finish();
    const before = kept > 0 ? ` (${kept} were there already)` : '';
    const after = complete ? '' : '; run the same command again to go on';
    terminal.stdout.write(`Wrote ${written} clips to ${values.out}${before}${after}\n`);
    return complete ? 0 : 1;
  },
});

function readSize(text: string): { width: number; height: number } {
  const [, width, height] = /^(\d{1,4})x(\d{1,4})$/.exec(text) ?? [];
  const size = { width: Number(width), height: Number(height) };
  const fits = [size.width, size.height].every((side) => side >= 16 && side <= 2048 && side % 2 === 0);
  if (!fits) {
    throw new UsageError(
      `zoetrope: --size must be WIDTHxHEIGHT, even numbers from 16 to 2048 such as 64x64, got '${text}'`,
    );
  }
  return size;
}
