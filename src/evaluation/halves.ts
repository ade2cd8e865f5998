import type { Region } from './regions.ts';
import { centreOf, type Track } from './tracks.ts';

/**
 * A track cut in two, as if it were two objects alike that touch: each region at its middle, across its longer axis, the
 * pieces of one frame going with those of the frame before that lie on the same side.
 *
 * @param width of frames, in pixels.
 */
export function halvesOf(track: Track, width: number): readonly [Track, Track] {
  let side: readonly [number, number] = [0.3, 1];
  const pairs = track.regions.map((region, frame) => {
    if (region === undefined) return undefined;
    const axis = longerAxis(region, width);
    const flip = axis[0] * side[0] + axis[1] * side[1] < 0 ? -1 : 1;
    side = [flip * axis[0], flip * axis[1]];
    const first = frame * (track.values.length / track.regions.length);
    return cut(region, width, side, track.values.subarray(first));
  });
  const size = track.values.length / track.regions.length;
  const half = (index: 0 | 1): Track => {
    const regions = pairs.map((pair) => pair?.[index]);
    // What belongs to the other half is not this one's.
    const values = track.values.slice();
    for (const [frame, pair] of pairs.entries()) {
      for (const pixel of pair?.[1 - index]?.pixels ?? []) values[frame * size + pixel] = notThere;
    }
    const gain = regions.reduce((sum, region) => sum + (region?.gain ?? 0), 0);
    return { ...track, values, regions, gain };
  };
  return [half(0), half(1)];
}

/** Evidence against an object, a logarithm of odds. */
const notThere = -3;

/** Unit vector along which the pixels of a region spread most. */
function longerAxis(region: Region, width: number): readonly [number, number] {
  const [x, y] = centreOf(region, width);
  let [xx, xy, yy] = [0, 0, 0];
  for (const pixel of region.pixels) {
    const dx = (pixel % width) - x;
    const dy = Math.floor(pixel / width) - y;
    xx += dx * dx;
    xy += dx * dy;
    yy += dy * dy;
  }
  const angle = 0.5 * Math.atan2(2 * xy, xx - yy);
  return [Math.cos(angle), Math.sin(angle)];
}

function cut(
  region: Region,
  width: number,
  [ax, ay]: readonly [number, number],
  values: Float32Array,
): readonly [Region, Region] | undefined {
  const [x, y] = centreOf(region, width);
  const isBefore = (pixel: number) => ((pixel % width) - x) * ax + (Math.floor(pixel / width) - y) * ay < 0;
  const piece = (pixels: Int32Array): Region => ({
    pixels,
    gain: pixels.reduce((sum, pixel) => sum + (values[pixel] ?? 0), 0),
  });
  const before = region.pixels.filter(isBefore);
  const after = region.pixels.filter((pixel) => !isBefore(pixel));
  return before.length > 0 && after.length > 0 ? [piece(before), piece(after)] : undefined;
}
