import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openDataset, resolveClipFile } from '../../src/data/dataset.ts';

let root = '';
beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'zoetrope-dataset-')));
});
afterEach(async () => await rm(root, { recursive: true }));

/** Makes files by path, with their text. */
async function make(files: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, file)), { recursive: true });
    await writeFile(join(root, file), text);
  }
}

const messages = (problems: readonly { at: string; message: string }[]) =>
  problems.map(({ at, message }) => `${at}: ${message}`);

describe('a plain folder', () => {
  test('pairs clips with captions, in the order of names, folders after files', async () => {
    await make({
      'b.MP4': '',
      'b.txt': ' a cat\n',
      'a.png': '',
      'B.webm': '',
      'sub/z.gif': '',
      'sub/z.txt': '',
      'é.mp4': '',
    });
    const { clips, problems } = await openDataset(root);
    expect(clips.map(({ file, at, captions }) => [file, at, captions])).toEqual([
      ['B.webm', 'B.webm', {}],
      ['a.png', 'a.png', {}],
      ['b.MP4', 'b.txt', { medium: 'a cat' }],
      ['é.mp4', 'é.mp4', {}],
      ['sub/z.gif', 'sub/z.txt', {}],
    ]);
    expect(problems).toEqual([]);
  });

  test('names what it looks past', async () => {
    await make({ 'a.mp4': '', 'README.md': '', '.a.mp4': '', 'lonely.txt': '', '.git/x.mp4': '' });
    const { clips, ignored } = await openDataset(root);
    expect(clips.length).toBe(1);
    expect(ignored).toEqual(['.a.mp4', '.git', 'README.md', 'lonely.txt']);
  });

  test('tells of captions that are no text, or too much of it', async () => {
    await make({
      'a.mp4': '',
      'a.txt': Uint8Array.of(0xff, 0xfe, 0x41),
      'b.mp4': '',
      'b.txt': 'x'.repeat(70_000),
    });
    const { clips, problems } = await openDataset(root);
    expect(clips.map(({ captions }) => captions)).toEqual([{}, {}]);
    expect(messages(problems)).toEqual([
      'a.txt: is not UTF-8 text',
      'b.txt: a caption of 70000 bytes; shorten it to 65536',
    ]);
  });
});

describe('a folder with a manifest', () => {
  test('is the manifest; what it does not list is a problem', async () => {
    await make({
      'captions.jsonl':
        '{"file":"clips/b.mp4","caption":"b"}\n{"file":"clips/a.mp4","caption":"a","oops":1}\nbad\n',
      'clips/a.mp4': '',
      'clips/b.mp4': '',
      'clips/c.mp4': '',
    });
    const { clips, problems } = await openDataset(root);
    expect(clips.map(({ file, at }) => [file, at])).toEqual([
      ['clips/b.mp4', 'captions.jsonl:1'],
      ['clips/a.mp4', 'captions.jsonl:2'],
    ]);
    expect(messages(problems)).toEqual([
      'captions.jsonl:3: not JSON; each line must be one object such as {"file": "a.mp4", "caption": "..."}',
      "captions.jsonl: field 'oops' (in 1 lines) means nothing here and is not used",
      'clips/c.mp4: is not listed in the manifest',
    ]);
  });

  test('may stand beside others in a folder of datasets; its files stay relative to it', async () => {
    await make({
      'one/captions.jsonl': '{"file":"a.mp4"}',
      'one/a.mp4': '',
      'two/manifest.jsonl': '{"file":"a.mp4"}',
      'two/captions.jsonl': '{"file":"b.mp4"}',
      'two/a.mp4': '',
      'three/c.mp4': '',
    });
    const { clips, problems } = await openDataset(root);
    expect(clips.map(({ file }) => file)).toEqual(['one/a.mp4', 'three/c.mp4', 'two/a.mp4']);
    expect(messages(problems)).toEqual([
      'two/captions.jsonl: not read: manifest.jsonl is the manifest of this folder',
    ]);
  });

  test('opens by the name of the manifest too', async () => {
    await make({ 'list.jsonl': '{"file":"a.mp4"}', 'a.mp4': '' });
    const { root: found, clips } = await openDataset(join(root, 'list.jsonl'));
    expect([found, clips.length]).toEqual([root, 1]);
  });
});

describe('what may be a trap', () => {
  test("links out of the folder, to nothing, and to folders; pipes; folders with a clip's name", async () => {
    const outside = await mkdtemp(join(tmpdir(), 'zoetrope-outside-'));
    await writeFile(join(outside, 'secret.mp4'), 'secret');
    await make({ 'good.mp4': '', 'folder.mp4/x.mp4': '', 'deep/real.mp4': '' });
    await symlink(join(outside, 'secret.mp4'), join(root, 'escape.mp4'));
    await symlink(outside, join(root, 'escape-folder'));
    await symlink(join(root, 'nowhere.mp4'), join(root, 'dangling.mp4'));
    await symlink(join(root, 'deep/real.mp4'), join(root, 'inside.mp4'));
    await symlink(root, join(root, 'deep', 'loop'));
    execFileSync('mkfifo', [join(root, 'pipe.mp4')]);
    const { clips, problems } = await openDataset(root);
    const answers: string[] = [];
    for (const { file } of clips) {
      answers.push(
        await resolveClipFile(root, file).then(
          (path) => `${file} -> ${path}`,
          (error: Error) => error.message,
        ),
      );
    }
    expect(answers).toEqual([
      'dangling.mp4: is a symbolic link to nothing',
      "escape.mp4: leads out of the dataset's folder by a symbolic link; not opened",
      'folder.mp4: is a folder, not a file; not opened',
      `good.mp4 -> ${root}/good.mp4`,
      `inside.mp4 -> ${root}/deep/real.mp4`,
      'pipe.mp4: is a pipe (FIFO), not a file; not opened',
      `deep/real.mp4 -> ${root}/deep/real.mp4`,
    ]);
    expect(messages(problems)).toEqual([
      'escape-folder: is a symbolic link to a folder; not followed',
      'deep/loop: is a symbolic link to a folder; not followed',
    ]);
    await rm(outside, { recursive: true });
  });

  test('a caption that links out of the folder is not read', async () => {
    await make({ 'a.mp4': '' });
    await symlink('/etc/hostname', join(root, 'a.txt'));
    const { clips, problems } = await openDataset(root);
    expect(clips[0]?.captions).toEqual({});
    expect(messages(problems)).toEqual([
      "a.txt: leads out of the dataset's folder by a symbolic link; not opened",
    ]);
  });

  test('folders without end', async () => {
    const deep = Array.from({ length: 40 }, () => 'd').join('/');
    await make({ [`${deep}/a.mp4`]: '' });
    const { clips, problems } = await openDataset(root);
    expect(clips).toEqual([]);
    expect(problems[0]?.message).toMatch(/nested more than 32 deep/);
  });

  test('no dataset at all', async () => {
    await make({ 'a.mp4': '' });
    await expect(openDataset(join(root, 'none'))).rejects.toThrow(
      /none: no such file or folder; check the path$/,
    );
    await expect(openDataset(join(root, 'a.mp4'))).rejects.toThrow(/is not a manifest/);
    await expect(openDataset('/dev/null')).rejects.toThrow(/neither a folder nor a file/);
  });
});

const shared = resolve(import.meta.dirname, '../../../shared/data');

test.skipIf(!existsSync(shared))(
  'the shared data (skipped where ../shared/data is missing) opens without a problem',
  async () => {
    const { clips, problems, ignored } = await openDataset(shared);
    const count = (folder: string) => clips.filter(({ file }) => file.startsWith(`${folder}/`)).length;
    expect(['emoji-motion', 'emoji-stills', 'droid-arm', 'robocoin', 'media-cases'].map(count)).toEqual([
      442, 1633, 869, 780, 68,
    ]);
    expect([problems, ignored]).toEqual([[], ['README.md']]);
    const smile = clips.find(({ file }) => file === 'emoji-motion/clips/001-smile.mp4');
    expect(Object.keys(smile?.captions ?? {})).toEqual(['label', 'short', 'detailed']);
  },
);
