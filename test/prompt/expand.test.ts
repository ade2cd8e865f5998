import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { describe as caption } from '../../src/data/worlds/caption.ts';
import { interpret } from '../../src/data/worlds/interpret.ts';
import { sampleScene } from '../../src/data/worlds/sample.ts';
import { chatEndpointOf, expandByChat } from '../../src/prompt/chat-expander.ts';
import { expandForWorlds } from '../../src/prompt/world-expander.ts';
import { fold, keyFromSeed } from '../../src/random/philox.ts';

describe('expanding for worlds', () => {
  it('keeps what a prompt says, and tells more', () => {
    let expanded = 0;
    for (let i = 0; i < 150; i++) {
      const key = fold(keyFromSeed(6), i);
      const prompt = caption(sampleScene(key), 'short', key);
      const long = expandForWorlds(prompt, i);
      if (long === undefined) continue;
      expanded++;
      const [said, told] = [interpret(prompt), interpret(long)];
      for (const name of ['place', 'time', 'weather'] as const) {
        if (said[name] !== undefined && told.place !== 'space')
          expect(told[name], `${prompt} -> ${long}`).toBe(said[name]);
      }
      const kinds = ({ objects }: typeof said) =>
        objects
          .flatMap(({ colour, shape, count }) => new Array(count).fill(`${colour ?? ''} ${shape}`))
          .sort();
      const shapes = ({ objects }: typeof said) =>
        objects.flatMap(({ shape, count }) => new Array(count).fill(shape)).sort();
      expect(shapes(told), `${prompt} -> ${long}`).toEqual(shapes(said));
      if (said.objects.every(({ colour }) => colour !== undefined)) expect(kinds(told)).toEqual(kinds(said));
      expect(long.length).toBeGreaterThan(prompt.length);
    }
    expect(expanded).toBeGreaterThan(140);
  });

  it('is the same for the same seed, and chooses anew for another', () => {
    const prompt = 'a red ball bounces';
    const all = Array.from({ length: 8 }, (_, seed) => expandForWorlds(prompt, seed));
    expect(new Set(all).size).toBeGreaterThan(6);
    expect(expandForWorlds(prompt, 3)).toBe(all[3]);
    for (const one of all) expect(one).toMatch(/(red|crimson|scarlet)/i);
  });

  it.each(['', 'a cat on a piano', 'four red balls and two blue cubes'])('leaves %j alone', (prompt) => {
    expect(expandForWorlds(prompt, 1)).toBeUndefined();
  });
});

describe('the chat endpoint of an environment', () => {
  it('needs a URL and a model', () => {
    expect(chatEndpointOf({})).toBeUndefined();
    expect(chatEndpointOf({ OPENAI_API_KEY: 'k', ZOETROPE_EXPAND_MODEL: 'm' })).toBeUndefined();
    expect(chatEndpointOf({ OPENAI_BASE_URL: 'http://x/v1', ZOETROPE_EXPAND_MODEL: '' })).toBeUndefined();
    expect(chatEndpointOf({ OPENAI_BASE_URL: 'http://x/v1', ZOETROPE_EXPAND_MODEL: 'm' })).toEqual({
      url: 'http://x/v1',
      model: 'm',
    });
  });
});

describe('expanding by chat', () => {
  let server: Server | undefined;
  afterEach(async () => {
    server?.closeAllConnections();
    await new Promise((done) => (server === undefined ? done(0) : server.close(done)));
    server = undefined;
  });

  async function serve(listener: RequestListener): Promise<string> {
    const started = createServer(listener);
    server = started;
    await new Promise<void>((done) => started.listen(0, '127.0.0.1', done));
    return `http://127.0.0.1:${(started.address() as AddressInfo).port}/v1/`;
  }

  const bodyOf = async (request: IncomingMessage) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    return JSON.parse(text) as { model: string; messages: { role: string; content: string }[] };
  };
  const answer = (content: unknown) => JSON.stringify({ choices: [{ message: { content } }] });
  const ask = (url: string, options: Partial<Parameters<typeof expandByChat>[2]> = {}) =>
    expandByChat('a red ball', { url, model: 'm', key: 'secret' }, { maxBytes: 60, ...options });

  it('asks as the API says, and gives the caption on one line', async () => {
    const seen: unknown[] = [];
    const url = await serve(async (request, response) => {
      const { model, messages } = await bodyOf(request);
      seen.push(request.method, request.url, request.headers.authorization, model, messages.at(-1));
      response.end(answer(' A small red ball\n rolls. '));
    });
    expect(await ask(url)).toBe('A small red ball rolls.');
    expect(seen).toEqual([
      'POST',
      '/v1/chat/completions',
      'Bearer secret',
      'm',
      { role: 'user', content: 'a red ball' },
    ]);
  });

  it('cuts long captions after a sentence, else after a word', async () => {
    const url = await serve((_, response) =>
      response.end(answer(`One sentence is here. ${'Two '.repeat(40)}`)),
    );
    expect(await ask(url)).toBe('One sentence is here.');
    expect(await ask(url, { maxBytes: 16 })).toBe('One sentence is');
  });

  it.each<[string, RequestListener, RegExp]>([
    [
      'a refusal',
      (_, response) => response.writeHead(401).end('no'),
      /answered 401; check OPENAI_BASE_URL, /,
    ],
    ['no JSON', (_, response) => response.end('<html>'), /holds no caption; use another model/],
    ['no text', (_, response) => response.end(answer(7)), /holds no caption/],
    ['null', (_, response) => response.end('null'), /holds no caption/],
    ['an empty caption', (_, response) => response.end(answer('  ')), /holds no caption/],
    ['an endless answer', (_, response) => response.end(answer('x'.repeat(2 ** 21))), /holds no caption/],
    [
      'a broken connection',
      (request) => request.socket.destroy(),
      /cannot be reached \(.+\); check OPENAI_BASE_URL/,
    ],
    ['silence', () => undefined, /no answer within 0.2 s/],
    ['an answer that never ends', (_, response) => response.write('{'), /no answer within 0.2 s/],
  ])('says in one line what is wrong: %s', async (_, listener, message) => {
    const url = await serve(listener);
    // Only who never answers is waited for.
    const failure = ask(url, { seconds: message.source.includes('0.2 s') ? 0.2 : 30 });
    await expect(failure).rejects.toThrow(message);
    const { message: text } = (await failure.catch((error: Error) => error)) as Error;
    expect(text).toMatch(/^prompt expansion by http:\/\/127/);
    expect(text).not.toMatch(/secret|\n/);
  });

  it('says when nobody listens, and stops when told to', async () => {
    const closed = await serve(() => undefined);
    await new Promise((done) => server?.close(done));
    await expect(ask(closed)).rejects.toThrow(/cannot be reached \(ECONNREFUSED\)/);
    await expect(ask('not a url')).rejects.toThrow(/cannot be reached/);
    const url = await serve(() => undefined);
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 50);
    await expect(ask(url, { signal: controller.signal })).rejects.toThrow('enough');
  });
});
