import { sliceFrames, type Video } from '../video/frames.ts';

/** Given frames, [height, width, 3], between which new ones are shown. */
export interface Seam {
  /** The given frame just before the new ones. */
  readonly before?: Uint8Array | undefined;
  /** The given frame just after them. */
  readonly after?: Uint8Array | undefined;
  /** Number of new frames. */
  readonly frames: number;
}

/** Most new frames over which what is lost of a given frame fades in at each seam. */
const longestFade = 6;

/**
 * New frames without a visible seam to the given ones beside them.
 *
 * The given frames are shown as they are, the new ones as they are decoded: the autoencoder loses a little, and what the
 * model makes of given frames that share a latent frame with new ones is not quite what is given. Where they meet, that
 * would show as a jump: of the given frame beside the new ones it is known exactly, being what the given frame has and
 * its decoded version lacks. It is added to the new frames next to the seam, less with each frame.
 *
 * @param pieces decoded frames: that of `seam.before`, when there is one; the new ones; that of `seam.after`, likewise.
 * @returns the new ones. At most six frames are held.
 */
export async function* blendSeam(pieces: AsyncIterable<Video>, seam: Seam): AsyncGenerator<Video> {
  // Where they are few, each side's fade ends at the other's given frame, which is right as it is.
  const fade = Math.min(longestFade, seam.frames);
  let lost: Float32Array | undefined;
  let count = 0;
  /** Frames whose distance to the end is not known yet. */
  const held: Video[] = [];
  for await (const frame of singleFrames(pieces)) {
    if (count++ === 0 && seam.before !== undefined) {
      lost = difference(seam.before, frame.data);
      continue;
    }
    // With a lost frame counted, the first new one is the second.
    held.push(lost === undefined ? frame : added(frame, lost, 1 - (count - 1) / (fade + 1)));
    if (seam.after === undefined || held.length > fade + 1) {
      const next = held.shift();
      if (next !== undefined) yield next;
    }
  }
  if (seam.after === undefined) return;
  const decodedAfter = held.pop();
  if (decodedAfter === undefined) return;
  const lostAfter = difference(seam.after, decodedAfter.data);
  for (const [i, frame] of held.entries()) {
    yield added(frame, lostAfter, 1 - (held.length - i) / (fade + 1));
  }
}

async function* singleFrames(pieces: AsyncIterable<Video>): AsyncGenerator<Video> {
  for await (const piece of pieces) for (let i = 0; i < piece.frames; i++) yield sliceFrames(piece, i, i + 1);
}

function difference(given: Uint8Array, decoded: Uint8Array): Float32Array {
  return Float32Array.from(given, (value, i) => value - (decoded[i] ?? 0));
}

/** A frame with a share of a loss made good, rounded and clamped; shares of 0 and less change nothing. */
function added(frame: Video, lost: Float32Array, share: number): Video {
  if (share <= 0) return frame;
  const data = Uint8ClampedArray.from(frame.data, (value, i) => value + share * (lost[i] ?? 0));
  return { ...frame, data: new Uint8Array(data.buffer) };
}
