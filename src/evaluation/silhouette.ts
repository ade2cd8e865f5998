import { clamp01 } from '../data/worlds/numeric.ts';
import { type Shape, shapes } from '../data/worlds/scene.ts';
import { geometries } from '../data/worlds/shapes.ts';
import type { Region } from './regions.ts';

/** Where a silhouette lies in a frame, in pixels from the centre of the upper left one. */
export interface Pose {
  readonly x: number;
  readonly y: number;
  /** Radius, in pixels. */
  readonly radius: number;
  /** Height over width of the stretched silhouette, near 1. */
  readonly squash: number;
  /** Turn clockwise, in radians. */
  readonly angle: number;
}

/** A pose, and the evidence that its silhouette gathers. */
export interface Fit extends Pose {
  readonly gain: number;
}

/** What one frame shows of objects of one colour: evidence, f32 [height, width]. */
export interface EvidenceFrame {
  readonly values: Float32Array;
  readonly width: number;
  readonly height: number;
}

/**
 * Sum of the evidence under the silhouette of a shape: with evidence as logarithms of odds, the logarithm of how much
 * likelier the frame is with the object there than without it.
 */
export function silhouetteGain(frame: EvidenceFrame, shape: Shape, pose: Pose): number {
  const { values, width, height } = frame;
  const { distance, reach } = geometries[shape];
  const { x, y, radius, squash, angle } = pose;
  const [wide, high] = [radius / Math.sqrt(squash), radius * Math.sqrt(squash)];
  const far = reach * Math.max(wide, high) + 1;
  const i0 = Math.max(0, Math.ceil(x - far));
  const i1 = Math.min(width - 1, Math.floor(x + far));
  const j0 = Math.max(0, Math.ceil(y - far));
  const j1 = Math.min(height - 1, Math.floor(y + far));
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  let gain = 0;
  for (let j = j0; j <= j1; j++) {
    const dy = (j - y) / high;
    for (let i = i0; i <= i1; i++) {
      const dx = (i - x) / wide;
      const cover = clamp01(0.5 - distance(cos * dx + sin * dy, cos * dy - sin * dx) * radius);
      if (cover > 0) gain += cover * (values[j * width + i] ?? 0);
    }
  }
  return gain;
}

/** Centroid and area of each shape of radius 1, upright. */
const extents: { readonly [S in Shape]: { readonly u: number; readonly v: number; readonly area: number } } =
  Object.fromEntries(shapes.map((shape) => [shape, extentOf(shape)])) as never;

function extentOf(shape: Shape): { u: number; v: number; area: number } {
  const step = 0.02;
  let [u, v, count] = [0, 0, 0];
  for (let j = -1.3; j < 1.3; j += step) {
    for (let i = -1.3; i < 1.3; i += step) {
      if (geometries[shape].distance(i, j) > 0) continue;
      u += i;
      v += j;
      count++;
    }
  }
  return { u: u / count, v: v / count, area: count * step * step };
}

/** The pose in which an upright (or turned) shape has the centroid and the area of a region. */
export function poseOver(region: Region, width: number, shape: Shape, angle = 0): Pose {
  let [x, y] = [0, 0];
  for (const pixel of region.pixels) {
    x += pixel % width;
    y += Math.floor(pixel / width);
  }
  const count = region.pixels.length;
  const { u, v, area } = extents[shape];
  // The region is about half a pixel larger than what it covers on each side.
  const radius = Math.max(1.5, Math.sqrt(count / area) - 0.4);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return {
    x: x / count - radius * (cos * u - sin * v),
    y: y / count - radius * (sin * u + cos * v),
    radius,
    squash: 1,
    angle,
  };
}

/** Smallest radius that is tried, in pixels. */
const leastRadius = 1.5;
const mostSquash = 1.25;

/** Climbs from a pose to the nearest one of greatest gain: in place and size, and in stretch where asked. */
export function climb(frame: EvidenceFrame, shape: Shape, from: Pose, stretches: boolean): Fit {
  let best: Fit = { ...from, gain: silhouetteGain(frame, shape, from) };
  const attempt = (change: Partial<Pose>): boolean => {
    const pose = { ...best, ...change };
    if (pose.radius < leastRadius || pose.squash > mostSquash || pose.squash < 1 / mostSquash) return false;
    const gain = silhouetteGain(frame, shape, pose);
    if (gain <= best.gain) return false;
    best = { ...pose, gain };
    return true;
  };
  for (let step = Math.max(1, 0.12 * from.radius); step > 0.2; step /= 2) {
    for (let round = 0; round < 6; round++) {
      const moved = [
        attempt({ x: best.x + step }) || attempt({ x: best.x - step }),
        attempt({ y: best.y + step }) || attempt({ y: best.y - step }),
        attempt({ radius: best.radius + 0.7 * step }) || attempt({ radius: best.radius - 0.7 * step }),
        stretches &&
          (attempt({ squash: best.squash * (1 + step / best.radius) }) ||
            attempt({ squash: best.squash / (1 + step / best.radius) })),
      ];
      if (!moved.includes(true)) break;
    }
  }
  return best;
}
