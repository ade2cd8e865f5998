import sharp from 'sharp';
import { UserError } from '../../errors.ts';
import type { MediaInfo } from '../media-info.ts';
import { checkPixels, targetSize } from './limits.ts';
import type { OpenAsk } from './protocol.ts';
import type { FrameSource, SourceFrame, SourceTally } from './source.ts';

// One picture is read once: a cache would only hold memory.
sharp.cache(false);

/** A still picture: a video of one frame at time 0. Turned upright by its EXIF tag, converted to sRGB by its profile. */
export class StillSource implements FrameSource {
  readonly info: MediaInfo;
  readonly #ask: OpenAsk;
  #given = false;

  private constructor(ask: OpenAsk, info: MediaInfo) {
    this.#ask = ask;
    this.info = info;
  }

  /** @throws UserError when the picture's header is damaged or it is larger than allowed. */
  static async open(ask: OpenAsk, bytes: number): Promise<StillSource> {
    const info = await stillInfo(ask, ask.path, bytes);
    checkPixels(ask, info);
    return new StillSource(ask, info);
  }

  async next(): Promise<SourceFrame | undefined> {
    if (this.#given) return undefined;
    this.#given = true;
    let pixels: Promise<Uint8Array> | undefined;
    return {
      time: 0,
      duration: 1,
      pixels: () => {
        pixels ??= stillPixels(this.#ask, this.#ask.path, this.info);
        return pixels;
      },
      free: () => {},
    };
  }

  tally(): SourceTally {
    const frames = this.#given ? 1 : 0;
    return wholeTally({ frames, claimed: 1, lastEnd: frames, rate: 1 });
  }

  close(): void {}
}

/** The tally of a source in which every picture either decodes wholly or is an error. */
export function wholeTally(seen: {
  frames: number;
  claimed: number;
  lastEnd: number;
  rate: number;
}): SourceTally {
  return {
    fromStart: true,
    frames: seen.frames,
    coded: seen.frames,
    hidden: 0,
    failed: 0,
    damaged: 0,
    claimedFrames: seen.claimed,
    claimedDuration: undefined,
    lastEnd: seen.lastEnd,
    offset: 0,
    rate: seen.rate,
    brokenOff: undefined,
  };
}

/** What the header of a still picture says. @throws UserError when it cannot be read. */
export async function stillInfo(ask: OpenAsk, path: string, bytes: number): Promise<MediaInfo> {
  // No limit here: `checkPixels` states the size, and reading a header takes no memory.
  const picture = await damagedAsUserError(path, sharp(path, { limitInputPixels: false }).metadata());
  const { width, height } = picture.autoOrient;
  const rotations = { 3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270 } as const;
  const coded = { width: picture.width, height: picture.height };
  checkPixels({ ...ask, path, size: null }, { ...emptyInfo, coded, width, height });
  return {
    ...emptyInfo,
    format: picture.format,
    codec: picture.format,
    width,
    height,
    coded,
    rotation: rotations[(picture.orientation ?? 1) as keyof typeof rotations] ?? 0,
    bytes,
  };
}

const emptyInfo: MediaInfo = {
  format: '',
  codec: '',
  width: 0,
  height: 0,
  coded: { width: 0, height: 0 },
  rotation: 0,
  pixelAspect: 1,
  duration: undefined,
  rate: 1,
  frames: 1,
  still: true,
  bytes: 0,
};

/** Decodes a still picture to uint8 RGB [height, width, 3] of the size asked for. @throws UserError when it is damaged. */
export async function stillPixels(ask: OpenAsk, path: string, info: MediaInfo): Promise<Uint8Array> {
  const [r, g, b] = ask.background;
  const { width, height } = targetSize(ask, info);
  sharp.concurrency(ask.threads);
  const picture = sharp(path, { limitInputPixels: ask.pixels, failOn: 'warning' })
    .autoOrient()
    .toColourspace('srgb')
    .flatten({ background: { r, g, b } })
    .resize(width, height, { fit: ask.fit === 'cover' ? 'cover' : 'fill', kernel: 'cubic' })
    .removeAlpha()
    .raw();
  return await damagedAsUserError(path, picture.toBuffer());
}

async function damagedAsUserError<T>(path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim();
    throw new UserError(`${path}: damaged picture (${reason.slice(0, 200)}); leave it out or fetch it again`);
  }
}
