import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { expect, it } from 'vitest';
import { joinProcesses } from '../../src/processes/join.ts';

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

const launchesOf = async (world: number) => {
  const port = await freePort();
  return Array.from({ length: world }, (_, rank) => ({
    rank,
    world,
    localRank: rank,
    localWorld: world,
    address: '127.0.0.1',
    port,
  }));
};

const bytes = (text: string) => new TextEncoder().encode(text);

it('gives every process the bytes of all, by rank, in the order of the exchanges', async () => {
  const launches = await launchesOf(3);
  // The last first: process 0 need not be there before the others.
  const joining = launches.toReversed().map((launch) => joinProcesses(launch));
  const groups = (await Promise.all(joining)).toReversed();
  const large = (rank: number) => new Uint8Array(300_000).fill(rank);
  expect(groups.map(({ rank }) => rank)).toEqual([0, 1, 2]);
  const found = await Promise.all(
    groups.map((group) => {
      const given = [bytes(`a${group.rank}`), large(group.rank), bytes('')];
      return Promise.all(given.map((one) => group.exchange(one)));
    }),
  );
  for (const [first, second, third] of found) {
    expect(first!.map((one) => new TextDecoder().decode(one))).toEqual(['a0', 'a1', 'a2']);
    expect(second).toEqual([large(0), large(1), large(2)]);
    expect(third!.map(({ length }) => length)).toEqual([0, 0, 0]);
  }
  await Promise.all(groups.map((group) => group[Symbol.asyncDispose]()));
});

it('process 0 may go on after the others have left, and they after it', async () => {
  const lost: number[] = [];
  const launches = await launchesOf(3);
  const [first, second, third] = await Promise.all(
    launches.map((launch) => joinProcesses(launch, { onLost: (rank) => lost.push(rank) })),
  );
  await second![Symbol.asyncDispose]();
  await Promise.all([first![Symbol.asyncDispose](), third![Symbol.asyncDispose]()]);
  expect(lost).toEqual([]);
});

it.each([0, 1])('all learn of process %i ending without leaving, those that wait too', async (dying) => {
  const launches = await launchesOf(3);
  const groups = await Promise.all(launches.map((launch) => joinProcesses(launch)));
  const left = groups.filter(({ rank }) => rank !== dying);
  const waiting = left.map((group) => group.exchange(bytes('x')).catch((error: Error) => error.message));
  // What the system does to the sockets of a process that ends.
  (groups[dying] as unknown as { close(): void }).close();
  for (const message of await Promise.all(waiting))
    expect(message).toMatch(
      /^process \d of the training is gone, so all stop; the same command with --resume/,
    );
  await expect(left[0]!.exchange(bytes('y'))).rejects.toThrow(`process ${dying} of the training is gone`);
  await Promise.all(left.map((group) => group[Symbol.asyncDispose]()));
});

it('says who did not come, and who came to the wrong training', async () => {
  const [first, second] = await launchesOf(2);
  await expect(joinProcesses(first!, { patience: 50 })).rejects.toThrow('process 1 of 2 did not come');
  await expect(joinProcesses(second!, { patience: 50 })).rejects.toThrow(
    'process 0 does not answer at 127.0.0.1:',
  );
  const [waiting] = await launchesOf(2);
  const refused = joinProcesses(waiting!).catch((error: Error) => error.message);
  const stray = await joinProcesses({ ...waiting!, rank: 2, world: 3 }, { onLost: () => undefined });
  expect(await refused).toMatch(/^process 2 of 3 came to a training of 2/);
  await stray[Symbol.asyncDispose]();
});

it('what speaks another language is sent away, and does no harm', async () => {
  const launches = await launchesOf(2);
  const first = joinProcesses(launches[0]!);
  const stranger = connect(launches[0]!.port, '127.0.0.1');
  await once(stranger, 'connect');
  stranger.write('GET / HTTP/1.1\r\n\r\n');
  stranger.resume();
  await once(stranger, 'close');
  const groups = await Promise.all([first, joinProcesses(launches[1]!)]);
  const [a] = await Promise.all(groups.map((group) => group.exchange(bytes('z'))));
  expect(a!.length).toBe(2);
  await Promise.all(groups.map((group) => group[Symbol.asyncDispose]()));
});
