import { frameAt, type Video, videoFrom } from '../video/frames.ts';
import type { PromptResult } from './prompt-accuracy.ts';

/** Frames shown of each video, evenly from first to last. */
const framesShown = 8;
/** Width of the bar before each row, in pixels: green where all is right, red where something is wrong. */
const barWidth = 4;
const gap = 2;
const right = [70, 200, 110] as const;
const wrong = [230, 60, 60] as const;
const paper = 24;

/** A picture (a video of one frame) with a row of frames for each video, in order. */
export function promptSheet(
  rows: readonly { readonly video: Video; readonly result: PromptResult }[],
): Video {
  const [first] = rows;
  if (first === undefined) throw new RangeError('a sheet of no videos');
  const { width, height, frames } = first.video;
  const shown = Math.min(framesShown, frames);
  const sheetWidth = barWidth + shown * (width + gap);
  const sheetHeight = rows.length * (height + gap);
  const data = new Uint8Array(3 * sheetWidth * sheetHeight).fill(paper);
  for (const [row, { video, result }] of rows.entries()) {
    const top = row * (height + gap);
    const bar = Object.values(result.score).includes(false) ? wrong : right;
    for (let y = 0; y < height; y++) {
      const line = 3 * (top + y) * sheetWidth;
      for (let x = 0; x < barWidth - 1; x++) data.set(bar, line + 3 * x);
      for (let column = 0; column < shown; column++) {
        const index = shown === 1 ? 0 : Math.round((column * (video.frames - 1)) / (shown - 1));
        const pixels = frameAt(video, index).subarray(3 * y * width, 3 * (y + 1) * width);
        data.set(pixels, line + 3 * (barWidth + column * (width + gap)));
      }
    }
  }
  return videoFrom(data, { width: sheetWidth, height: sheetHeight, rate: 1 });
}

/** The lines of text beside a sheet: each prompt, what was seen, and what of it was wrong. */
export function sheetText(results: readonly PromptResult[]): string {
  return results
    .map(({ index, prompt, seen, score }) => {
      const things = seen.objects.map(({ colour, shape, motion }) => {
        const way = motion?.direction ?? motion?.turn;
        return [colour, shape, motion?.kind, way].filter((word) => word !== undefined).join(' ');
      });
      const failed = Object.entries(score).flatMap(([name, isRight]) => (isRight === false ? [name] : []));
      const verdict = failed.length === 0 ? 'right' : `WRONG: ${failed.join(', ')}`;
      return `${index}: ${prompt}\n  ${seen.place} ${seen.time}: ${things.join(' + ')}\n  ${verdict}\n`;
    })
    .join('');
}
