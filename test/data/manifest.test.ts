import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type Clip,
  captionLevels,
  formatManifestLine,
  manifestLimits,
  parseManifestLine,
  pathMistake,
  readManifest,
} from '../../src/data/manifest.ts';
import { keyFromSeed, RandomStream } from '../../src/random/philox.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'zoetrope-manifest-'));
});
afterAll(async () => await rm(folder, { recursive: true }));

const parse = (fields: object) => parseManifestLine(JSON.stringify(fields), 'm.jsonl:1');

describe('a manifest line', () => {
  test('gives captions their levels', () => {
    const levels = (fields: object) => parse({ file: 'a.mp4', ...fields }).captions;
    expect(levels({ caption: ' a dog ' })).toEqual({ medium: 'a dog' });
    expect(levels({ label: 'dog', short: 'a dog', caption: 'a brown dog runs' })).toEqual({
      label: 'dog',
      short: 'a dog',
      detailed: 'a brown dog runs',
    });
    expect(levels({ captions: { short: 's', medium: 'm', detailed: 'd' } })).toEqual({
      short: 's',
      medium: 'm',
      detailed: 'd',
    });
    expect(levels({ caption: '   ', captions: {} })).toEqual({});
    expect(levels({ caption: null })).toEqual({});
  });

  test('takes tags from a list, a string, and the context fields', () => {
    expect(parse({ file: 'a.mp4', tags: 'Office / Mug / Put', scene: 'home' }).tags).toEqual([
      'Office',
      'Mug',
      'Put',
      'home',
    ]);
    expect(parse({ file: 'a.mp4', tags: ['b', 'b', ''], robot: 'R' }).tags).toEqual(['b', 'R']);
  });

  test('reads its time range, and not the place where it was cut out of something else', () => {
    expect(parse({ file: 'a.mp4', start: 1.5, end: 3 })).toMatchObject({ start: 1.5, end: 3 });
    expect(parse({ file: 'a.mp4', start_s: 3.3 })).toMatchObject({ start: 0, end: Number.POSITIVE_INFINITY });
  });

  const mistakes: [string, RegExp][] = [
    ['{', /^m.jsonl:1: not JSON/],
    ['[]', /must be a JSON object, got \[\]/],
    ['{}', /file must be a string .* got nothing/],
    ['{"file": 3}', /got 3/],
    ['{"file": ""}', /file is empty/],
    ['{"file": "../a.mp4"}', /'..\/a.mp4' leads out/],
    ['{"file": "a/../../b.mp4"}', /leads out/],
    ['{"file": "/etc/passwd"}', /is absolute/],
    ['{"file": "C:\\\\a.mp4"}', /backslash/],
    ['{"file": "c:/a.mp4"}', /is absolute/],
    ['{"file": "a\\u0000.mp4"}', /NUL/],
    ['{"file": "a.mp4", "caption": 3}', /caption must be a string, got 3/],
    ['{"file": "a.mp4", "captions": "x"}', /captions must be an object with label, short/],
    ['{"file": "a.mp4", "captions": {"long": "x"}}', /no level 'long'; use label, short/],
    ['{"file": "a.mp4", "start": "1"}', /start must be a number of seconds, 0 or more, got "1"/],
    ['{"file": "a.mp4", "start": -1}', /got -1/],
    ['{"file": "a.mp4", "start": 2, "end": 2}', /end \(2 s\) must be later than start \(2 s\)/],
    ['{"file": "a.mp4", "tags": [1]}', /tags must be a list of strings/],
    [JSON.stringify({ file: 'a.mp4', caption: 'x'.repeat(20_000) }), /20000 characters; shorten it/],
  ];
  test.each(mistakes)('%s is refused in one line', (line, message) => {
    expect(() => parseManifestLine(line, 'm.jsonl:1')).toThrow(message);
    expect(() => parseManifestLine(line, 'm.jsonl:1')).toThrow(/^m.jsonl:1: [^\n]*$/);
  });

  test('survives being written and read, whatever it says', () => {
    for (let seed = 0; seed < 500; seed++) {
      const random = new RandomStream(keyFromSeed(seed));
      const text = () =>
        random.pick(['a', 'dog "runs"', 'ünï ćødé 犬 🐕', 'tab\there', '\u2028', '</script>']);
      const clip: Clip = {
        file: `${text().replace(/\//g, '')}/${random.int(1000)}.mp4`,
        captions: Object.fromEntries(
          captionLevels.filter(() => random.int(2) === 1).map((level) => [level, text().trim() || 'x']),
        ),
        start: random.pick([0, random.uniform(0, 10)]),
        end: random.pick([Number.POSITIVE_INFINITY, random.uniform(10, 20)]),
        tags: [...new Set(Array.from({ length: random.int(3) }, text))].filter(
          (tag) => tag.trim() === tag && tag !== '',
        ),
        at: 'm.jsonl:1',
      };
      expect(parseManifestLine(formatManifestLine(clip), 'm.jsonl:1'), `seed ${seed}`).toEqual(clip);
    }
  });
});

describe('a manifest file', () => {
  async function read(text: string) {
    await writeFile(join(folder, 'm.jsonl'), text);
    return await readManifest(join(folder, 'm.jsonl'), 'm.jsonl');
  }

  test('goes on after wrong lines, and names each', async () => {
    const { clips, problems } = await read(
      '{"file":"a.mp4"}\n\nnonsense\n{"file":"../b.mp4"}\r\n{"file":"c.mp4"}',
    );
    expect(clips.map(({ file, at }) => [file, at])).toEqual([
      ['a.mp4', 'm.jsonl:1'],
      ['c.mp4', 'm.jsonl:5'],
    ]);
    expect(problems.map(({ at }) => at)).toEqual(['m.jsonl:3', 'm.jsonl:4']);
    expect(problems.every(({ message }) => !message.startsWith('m.jsonl'))).toBe(true);
  });

  test('tells of fields that mean nothing', async () => {
    const { unknownFields } = await read(
      '{"file":"a.mp4","captoin":"x"}\n{"file":"b.mp4","captoin":"y","start_s":1}\n',
    );
    expect([...unknownFields]).toEqual([['captoin', 2]]);
  });

  test('holds no line that is too long, wherever it falls', async () => {
    const long = 'x'.repeat(manifestLimits.lineBytes + 1);
    const { clips, problems } = await read(
      `{"file":"a.mp4"}\n${long}\n{"file":"b.mp4"}\n${long}${long}${long}`,
    );
    expect(clips.map(({ at }) => at)).toEqual(['m.jsonl:1', 'm.jsonl:3']);
    expect(problems.map(({ at, message }) => [at, message])).toEqual([
      ['m.jsonl:2', 'line longer than 65536 bytes: not read'],
      ['m.jsonl:4', 'line longer than 65536 bytes: not read'],
    ]);
  });

  test('stops describing wrong lines after a thousand', async () => {
    const { problems } = await read('x\n'.repeat(5000));
    expect(problems.length).toBe(manifestLimits.problems + 1);
    expect(problems.at(-1)?.message).toMatch(/rest of the manifest was not read/);
  });

  test('that is not there is one line', async () => {
    await expect(readManifest(join(folder, 'none.jsonl'), 'none.jsonl')).rejects.toThrow(
      /^none.jsonl: cannot be read \(ENOENT/,
    );
  });
});

test('a path that leads anywhere else is refused, one that does not is not', () => {
  for (const path of ['a.mp4', 'a/b/c.mp4', '..a.mp4', 'a..b/c', './a.mp4', 'a b.mp4', '犬.mp4']) {
    expect(pathMistake(path), path).toBeUndefined();
  }
  for (const path of ['..', 'a/..', '/a', '//a', 'a\\b', 'C:a', '', 'x'.repeat(2000), 'a\0']) {
    expect(pathMistake(path), path).toBeDefined();
  }
});
