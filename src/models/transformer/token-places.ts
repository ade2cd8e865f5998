import { type RotaryAngles, rotaryAngles } from '../../nn/rotary-positions.ts';
import type { TimeHeightWidth } from './config.ts';

/** Cosines and sines of the rotary angles of consecutive tokens, [tokens, head size / 2] each. */
export interface TokenTurns {
  readonly cos: Float32Array;
  readonly sin: Float32Array;
}

/** Waves over a frame's height, and over its width, that say where in the frame a token is. */
const placeWaves = 4;

/** Numbers that say where in its frame a token is: sine and cosine of each wave, for height and width. */
export const placeFeatures = 4 * placeWaves;

/**
 * Channel pairs of a head for [t, h, w]: a quarter for time, the rest shared by height and width.
 * @param headSize even, at least 16.
 */
export function rotaryPairs(headSize: number): TimeHeightWidth {
  const space = Math.floor((3 * headSize) / 16);
  return [headSize / 2 - 2 * space, space, space];
}

/** Video tokens turn by their patch's [t, h, w]. */
export const videoTurns = keeping((headSize: number, ...grid: TimeHeightWidth) =>
  flat(rotaryAngles([...patchesOf(grid)], rotaryPairs(headSize))),
);

/** The n-th of `count` text tokens turns by [-1 - n, 0, 0]. */
export const textTurns = keeping((headSize: number, count: number) =>
  flat(
    rotaryAngles(
      Array.from({ length: count }, (_, n) => [-1 - n, 0, 0]),
      rotaryPairs(headSize),
    ),
  ),
);

/** The n-th of `count` bytes turns by n. */
export const byteTurns = keeping((headSize: number, count: number) =>
  flat(
    rotaryAngles(
      Array.from({ length: count }, (_, n) => [n]),
      [headSize / 2],
    ),
  ),
);

/**
 * Where each patch of a video is in its frame, as a share of the frame's own height and width, [t h w, 16]. Rotary
 * positions alone count from the upper left corner: without this nothing but the absence of further tokens tells where a
 * frame ends.
 */
export const placesOf = keeping((...[T, H, W]: TimeHeightWidth): Float32Array => {
  const waves = (share: number) =>
    Array.from({ length: placeWaves }, (_, i) => Math.PI * (i + 1) * (share - 0.5)).flatMap((angle) => [
      Math.sin(angle),
      Math.cos(angle),
    ]);
  const rows = Array.from({ length: H }, (_, h) => waves((h + 0.5) / H));
  const columns = Array.from({ length: W }, (_, w) => waves((w + 0.5) / W));
  const frame = rows.flatMap((row) => columns.flatMap((column) => [...row, ...column]));
  const out = new Float32Array(T * frame.length);
  for (let t = 0; t < T; t++) out.set(frame, t * frame.length);
  return out;
});

/** [t, h, w] of each patch of a grid, in the order of its tokens. */
function* patchesOf([T, H, W]: TimeHeightWidth): Generator<TimeHeightWidth> {
  for (let t = 0; t < T; t++) for (let h = 0; h < H; h++) for (let w = 0; w < W; w++) yield [t, h, w];
}

function flat({ cos, sin }: RotaryAngles): TokenTurns {
  return { cos: cos.data, sin: sin.data };
}

/** Results that are kept; the oldest goes first. */
const mostKept = 64;

/** A function of numbers whose results are kept: batches have a few grids and lengths, over and over. Do not write to them. */
function keeping<Arguments extends readonly number[], Result>(
  make: (...given: Arguments) => Result,
): (...given: Arguments) => Result {
  const kept = new Map<string, Result>();
  return (...given) => {
    const key = given.join();
    const known = kept.get(key);
    if (known !== undefined) return known;
    const made = make(...given);
    const [oldest] = kept.keys();
    if (kept.size >= mostKept && oldest !== undefined) kept.delete(oldest);
    kept.set(key, made);
    return made;
  };
}
