import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Writable } from 'node:stream';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadModel } from '../../src/app.ts';
import { main } from '../../src/cli/main.ts';
import { autoencoderSpec } from '../../src/models/autoencoder/autoencoder.ts';
import { latentShapeOf } from '../../src/models/latent-spec.ts';
import { initialize } from '../../src/nn/parameters.ts';
import { samplingSettings } from '../../src/pipeline/request.ts';
import { sampleLatents } from '../../src/pipeline/sampling.ts';
import { keyFromSeed } from '../../src/random/philox.ts';
import { writeModel } from '../../src/storage/model-file.ts';
import { autoencoderConfigOf } from '../../src/training/autoencoder-task.ts';
import { readAutoencoderRecipe } from '../../src/training/recipe.ts';
import { writeSheet } from '../../src/training/sample-sheet.ts';
import { joinFrames, type Video } from '../../src/video/frames.ts';

const toy = resolve(import.meta.dirname, '../../recipes/toy');
let folder: string;
let recipe: string;
let autoencoder: string;
const at = (...names: string[]) => join(folder, ...names);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-sheets-'));
  const file = join(toy, 'autoencoder.json');
  const config = autoencoderConfigOf(await readAutoencoderRecipe(file), file);
  const parameters = initialize(autoencoderSpec(config), keyFromSeed(1));
  autoencoder = at('autoencoder.safetensors');
  await writeModel(autoencoder, { kind: 'autoencoder', config, parameters });
  const given = JSON.parse(await readFile(join(toy, 'transformer.json'), 'utf8'));
  delete given.$schema;
  recipe = at('recipe.json');
  const intervals = { checkpoint: 2, sample: 2, log: 1 };
  await writeFile(
    recipe,
    JSON.stringify({ ...given, data: { ...given.data, clips: 6 }, steps: 2, intervals }),
  );
});
afterAll(() => rm(folder, { recursive: true }));

async function train(...argv: string[]): Promise<{ code: number; stderr: string }> {
  let stderr = '';
  const sink = (keep: (text: string) => void) =>
    new Writable({
      write(chunk, _encoding, done) {
        keep(String(chunk));
        done();
      },
    });
  const terminal = {
    stdout: sink(() => undefined),
    stderr: sink((text) => {
      stderr += text;
    }),
    signal: new AbortController().signal,
  };
  const code = await main(['train', 'transformer', '--recipe', recipe, '--threads', '0', ...argv], terminal);
  return { code, stderr };
}

it('a training draws what its average makes of held-out prompts, the same that generating gives', async () => {
  const { code, stderr } = await train('--autoencoder', autoencoder, '--out', at('run'));
  expect(stderr).toContain('Sample sheets every 2 steps: 4 held-out prompts');
  expect(code).toBe(0);
  expect((await readdir(at('run', 'samples'))).sort()).toEqual(['rows.json', 'step-00000002.png']);
  const prompts: string[] = JSON.parse(await readFile(at('run', 'samples', 'rows.json'), 'utf8'));
  expect(new Set(prompts).size).toBe(4);
  const report = await readFile(at('run', 'report.html'), 'utf8');
  for (const prompt of prompts) expect(report).toContain(`<li>${prompt}</li>`);
  expect(report.match(/<img alt="" src="data:image\/png;base64,/g)).toHaveLength(1);

  await mkdir(at('model'));
  await cp(autoencoder, at('model', 'autoencoder.safetensors'));
  await cp(at('run', 'transformer.safetensors'), at('model', 'transformer.safetensors'));
  await using model = await loadModel(at('model'), { device: 'cpu' });
  const rows: Video[] = [];
  for (const prompt of prompts) {
    const shape = latentShapeOf(model.latent, 5, { width: 16, height: 16 });
    const settings = samplingSettings({ prompt, seed: 1, steps: 16 });
    const latents = await sampleLatents(model.field, model.config, { shape }, settings);
    const pieces: Video[] = [];
    for await (const piece of model.codec.decode(latents, { rate: 12, frames: 5 })) pieces.push(piece);
    rows.push(joinFrames(pieces));
  }
  await writeSheet(at('again'), 2, rows);
  const sheet = (run: string) => readFile(at(run, 'samples', 'step-00000002.png'));
  expect((await sheet('run')).equals(await sheet('again'))).toBe(true);
});

it('the cache tells where the autoencoder is; without it a training says so and draws nothing', async () => {
  const data = ['--data', at('run', 'latents')];
  expect((await train(...data, '--plan', '--out', at('other'))).stderr).toContain(
    'Sample sheets every 2 steps',
  );
  await rename(autoencoder, at('moved.safetensors'));
  const gone = await train(...data, '--out', at('other'));
  expect(gone.stderr).toContain(`No sample sheets: ${autoencoder} is gone; give --autoencoder FILE\n`);
  expect(gone.code).toBe(0);
  expect(await readdir(at('other'))).not.toContain('samples');
  await writeFile(autoencoder, 'another');
  expect((await train(...data, '--plan', '--out', at('other'))).stderr).toContain(
    `No sample sheets: ${autoencoder} is not the autoencoder that the latents were made with;`,
  );
});
