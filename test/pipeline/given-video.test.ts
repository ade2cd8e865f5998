import { expect, it } from 'vitest';
import { type GivenVideo, readFrames } from '../../src/pipeline/given-video.ts';
import type { Video } from '../../src/video/frames.ts';
import { pattern } from './tiny-model.ts';

/** A video without end, of pieces of two frames; `onPiece` is told how many were read. */
function endless(onPiece: (count: number) => void): GivenVideo & { readonly closed: () => boolean } {
  let isClosed = false;
  return {
    name: 'endless',
    width: 16,
    height: 16,
    rate: 12,
    closed: () => isClosed,
    async *frames(): AsyncGenerator<Video> {
      try {
        for (let count = 1; ; count++) {
          onPiece(count);
          yield pattern(2);
        }
      } finally {
        isClosed = true;
      }
    },
  };
}

it('reads as many frames as are wanted, and no piece more', async () => {
  let pieces = 0;
  const video = endless((count) => {
    pieces = count;
  });
  expect((await readFrames(video, 5)).frames).toBe(5);
  expect([pieces, video.closed()]).toEqual([3, true]);
});

it('stops reading when it is told to', async () => {
  const controller = new AbortController();
  let pieces = 0;
  const video = endless((count) => {
    pieces = count;
    if (count === 3) controller.abort(new Error('stopped'));
  });
  await expect(readFrames(video, undefined, controller.signal)).rejects.toThrow('stopped');
  expect([pieces, video.closed()]).toEqual([3, true]);
});
