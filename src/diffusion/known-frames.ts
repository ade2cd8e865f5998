import { type Key, RandomStream } from '../random/philox.ts';

type Pattern = (count: number, stream: RandomStream) => readonly boolean[];

const frames = (count: number, isKnown: (frame: number) => boolean): boolean[] =>
  Array.from({ length: count }, (_, frame) => isKnown(frame));
/** 1 to count - 1. */
const part = (count: number, stream: RandomStream): number => 1 + stream.int(count - 1);

/** What is known of a video, with its share among videos of which something is. */
const patterns: readonly (readonly [share: number, pattern: Pattern])[] = [
  // Image to video.
  [0.4, (count) => frames(count, (frame) => frame === 0)],
  // Extending forward.
  [0.15, (count, stream) => before(count, part(count, stream))],
  // Extending backward.
  [0.15, (count, stream) => before(count, part(count, stream)).toReversed()],
  // Joining and looping.
  [0.15, bothEnds],
  // Filling in.
  [0.15, scattered],
];

/**
 * Which latent frames of a training sample are known: given clean, at timestep 0, without a share in the loss. One
 * network learns from these masks to continue, join, loop and fill in (as in Diffusion Forcing, Chen et al. 2024).
 *
 * @param latentFrames 1 or more; a still is never known.
 * @param share of samples of which something is known, 0 to 1. Default 0.3. Of these, four in ten know the first frame,
 *   the others some frames at the start, at the end, at both ends, or anywhere, equally often.
 * @returns one entry per latent frame; at least one is false.
 */
export function drawKnownFrames(key: Key, latentFrames: number, share = 0.3): readonly boolean[] {
  const stream = new RandomStream(key);
  const isPlain = stream.uniform() >= share;
  if (isPlain || latentFrames < 2) return frames(latentFrames, () => false);
  let rest = stream.uniform();
  for (const [weight, pattern] of patterns) {
    if (rest < weight) return pattern(latentFrames, stream);
    rest -= weight;
  }
  return scattered(latentFrames, stream);
}

function before(count: number, end: number): boolean[] {
  return frames(count, (frame) => frame < end);
}

/** Some frames at each end, at least one unknown between them; two frames have no room for that: the first is known. */
function bothEnds(count: number, stream: RandomStream): boolean[] {
  if (count < 3) return before(count, 1);
  const first = 1 + stream.int(count - 2);
  const last = 1 + stream.int(count - 1 - first);
  return frames(count, (frame) => frame < first || frame >= count - last);
}

/** Each frame as likely as not, but one at least unknown. */
function scattered(count: number, stream: RandomStream): boolean[] {
  const unknown = stream.int(count);
  return frames(count, () => stream.uniform() < 0.5).map((known, frame) => known && frame !== unknown);
}
