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

/** Size of the frames to give: as asked for, else as displayed. */
export function targetSize(ask: OpenAsk, info: Size): Size {
  return ask.size ?? { width: info.width, height: info.height };
}
