import { UserError } from '../../errors.ts';
import type { Size } from '../frames.ts';
import type { MediaInfo } from '../media-info.ts';
import type { OpenAsk } from './protocol.ts';

/** @throws UserError when the pictures, coded or as displayed, have more pixels than allowed, or the frames asked for do. */
export function checkPixels(ask: OpenAsk, info: MediaInfo): void {
  for (const { width, height } of [info.coded, info, targetSize(ask, info)]) {
    if (width * height > ask.pixels) {
      throw new UserError(
        `${ask.path}: pictures of ${width}x${height} pixels, more than the ${ask.pixels} allowed; scale the file down first`,
      );
    }
  }
}

/** Size of the frames to give: as asked for, else as displayed, scaled down to the longest side asked for. */
export function targetSize(ask: OpenAsk, info: Size): Size {
  if (ask.size) return ask.size;
  const scale = Math.min(1, (ask.maxSide ?? Number.POSITIVE_INFINITY) / Math.max(info.width, info.height, 1));
  const side = (pixels: number) => Math.max(1, Math.round(pixels * scale));
  return scale === 1
    ? { width: info.width, height: info.height }
    : { width: side(info.width), height: side(info.height) };
}
