import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { UserError } from '../../errors.ts';
import { durationOf, frameAt, type Size, type Video } from '../../video/frames.ts';
import type { MediaInfo } from '../../video/media-info.ts';
import type { MediaReader, VideoStream } from '../../video/read.ts';
import { resolveClipFile } from '../dataset.ts';
import type { FrameFacts } from '../plan.ts';

/** What decoding a file from end to end has shown. */
export type FileSurvey = {
  /** Relative to the dataset's folder. */
  readonly file: string;
  /** Size of the file; 0 when it may not be opened. */
  readonly bytes: number;
  /** SHA-256 of its bytes, in hex; empty when it may not be opened. */
  readonly hash: string;
  /** Of all frames that could be decoded; undefined when there are none. */
  readonly facts: FrameFacts | undefined;
  /** Codec, such as `h264`; empty when the file could not be opened. */
  readonly codec: string;
  /** How long the decoded frames play, in seconds; 0 for a still. */
  readonly seconds: number;
  /** Why the file cannot be trusted: not to be opened, unreadable, damaged or cut short. */
  readonly damage: string | undefined;
  /** At most {@link sampleFrames} frames, from the first to near the last, small; empty without frames. */
  readonly samples: readonly Picture[];
};

/** Pixels of a small picture: uint8 RGB, shape [height, width, 3]. */
export type Picture = Size & { readonly data: Uint8Array };

/** Frames looked at in a second of video; from these the samples are chosen. */
const samplesPerSecond = 2;
const mostSamples = samplesPerSecond * 86_400;

/** Most frames in {@link FileSurvey.samples}. */
export const sampleFrames = 4;

/**
 * Decodes every frame of a file, small, to learn what is really in it: containers claim what they like.
 *
 * Never fails for what the file is or holds; that is in `damage`.
 *
 * @param side the longer side of the samples, in pixels.
 */
export async function surveyFile(
  reader: Pick<MediaReader, 'stream'>,
  root: string,
  file: string,
  side: number,
): Promise<FileSurvey> {
  let path = '';
  const found = { bytes: 0, hash: '', codec: '' };
  const samples = new Thinner();
  try {
    path = await resolveClipFile(root, file);
    found.bytes = (await stat(path)).size;
    found.hash = await hashFile(path);
    await using stream = await reader.stream(path, {
      maxSide: side,
      rate: samplesPerSecond,
      onShortfall: 'report',
      reportTimes: true,
    });
    found.codec = stream.info.codec;
    const decoded = await decode(stream, path, samples);
    const count = Math.min(sampleFrames, decoded.timestamps.length);
    return { file, ...found, ...summarise(stream.info, decoded), samples: samples.pick(count) };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    const damage = withoutSubject(error.message, path || file);
    return { file, ...found, facts: undefined, seconds: 0, damage, samples: [] };
  }
}

type Decoded = { readonly timestamps: Float64Array; readonly shortfall: string | undefined };

/** Takes the few frames that come; all are decoded, but conversion costs as much as decoding. */
async function decode(stream: VideoStream, path: string, samples: Thinner): Promise<Decoded> {
  for await (const piece of stream) {
    for (let i = 0; i < piece.frames; i++) samples.add(piece, i);
    // A few bytes can claim that a frame is shown for a thousand years.
    if (samples.seen > mostSamples)
      throw new UserError(`${path}: claims to play for more than a day; cut it`);
  }
  const { times = [], shortfall } = stream.report;
  return { timestamps: Float64Array.from(times), shortfall: shortfall?.reason };
}

function summarise(info: MediaInfo, { timestamps, shortfall }: Decoded) {
  const frames = timestamps.length;
  const { width, height } = info;
  // A video of one frame is a picture, whatever it came in.
  const still = info.still || frames === 1;
  const rate = info.rate ?? averageRate(timestamps);
  const facts = frames === 0 ? undefined : { width, height, still, rate, timestamps };
  const seconds = still ? 0 : durationOf({ data: new Uint8Array(), frames, height, width, rate, timestamps });
  return { facts, seconds, damage: shortfall ?? (frames === 0 ? 'no frame can be decoded' : undefined) };
}

function averageRate(timestamps: Float64Array): number {
  const span = (timestamps.at(-1) ?? 0) - (timestamps[0] ?? 0);
  return span > 0 ? (timestamps.length - 1) / span : 1;
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

function withoutSubject(message: string, subject: string): string {
  return message.startsWith(`${subject}: `) ? message.slice(subject.length + 2) : message;
}

/** Keeps frames at even distances of a stream whose length nobody knows, in bounded memory. */
class Thinner {
  #kept: Picture[] = [];
  #stride = 1;
  #seen = 0;

  /** Frames added. */
  get seen(): number {
    return this.#seen;
  }

  add(video: Video, index: number): void {
    if (this.#seen++ % this.#stride !== 0) return;
    this.#kept.push({ width: video.width, height: video.height, data: frameAt(video, index).slice() });
    if (this.#kept.length === 4 * sampleFrames) {
      this.#kept = this.#kept.filter((_, i) => i % 2 === 0);
      this.#stride *= 2;
    }
  }

  /** At most `count` of the frames kept, the first and the last among them. */
  pick(count: number): Picture[] {
    const last = this.#kept.length - 1;
    const indices = Array.from({ length: count }, (_, i) => Math.round((i * last) / Math.max(1, count - 1)));
    return [...new Set(indices)].map((i) => this.#kept[i]).filter((picture) => picture !== undefined);
  }
}
