import { clamp } from './numeric.ts';
import type { Shape } from './scene.ts';

/**
 * The normal of a surface: x right, y down, z towards the viewer; of length 1, but shorter where facets meet within a
 * pixel (their average). One is made per drawing and written over for each pixel, so that shading allocates nothing.
 */
export interface Normal {
  x: number;
  y: number;
  z: number;
}

/**
 * A shape in its own coordinates: u right, v down, of radius about 1 around the centre (0, 0).
 *
 * Distances are close to Euclidean near the outline, which is where they become coverage.
 */
export interface ShapeGeometry {
  /** Signed distance to the outline, negative inside. */
  distance(u: number, v: number): number;
  /** Writes the surface normal at an inside point; `w` is the width of a pixel, over which facets blend. */
  normal(u: number, v: number, w: number, out: Normal): void;
  /** Runs across the stripes; they repeat every 1. */
  stripe(u: number, v: number): number;
  /** How far the shape reaches below its centre: it stands on the ground at v = base. */
  readonly base: number;
  /** Radius of the smallest circle around the centre that holds the shape. */
  readonly reach: number;
  /** Half the extent of the foot that touches the ground, for contact shadows. */
  readonly foot: number;
}

const diagonal = (u: number, v: number) => (0.55 * u + 0.84 * v) / 0.74 + 0.25;

function setNormal(out: Normal, x: number, y: number, z: number): void {
  const scale = 1 / Math.sqrt(x * x + y * y + z * z + 1e-12);
  out.x = x * scale;
  out.y = y * scale;
  out.z = z * scale;
}

/** A cushion over any outline: steep at the edge, level from `bevel` inwards. */
function pillow(
  distance: (u: number, v: number) => number,
  bevel: number,
  steepness: number,
): ShapeGeometry['normal'] {
  return (u, v, w, out) => {
    const h = Math.max(0.03, 0.5 * w);
    const du = distance(u + h, v) - distance(u - h, v);
    const dv = distance(u, v + h) - distance(u, v - h);
    const edge = clamp(1 + distance(u, v) / bevel, 0, 1);
    const tilt = (steepness * edge) / (2 * h);
    setNormal(out, du * tilt, dv * tilt, 1);
  };
}

/** To first order near the outline of an ellipse with half axes a and b. */
function ellipseDistance(x: number, y: number, a: number, b: number): number {
  const level = Math.sqrt((x * x) / (a * a) + (y * y) / (b * b));
  const slope = Math.sqrt((x * x) / a ** 4 + (y * y) / b ** 4);
  return slope > 1e-9 ? ((level - 1) * level) / slope : -Math.min(a, b);
}

const ballRadius = 0.95;
const ball: ShapeGeometry = {
  distance: (u, v) => Math.sqrt(u * u + v * v) - ballRadius,
  normal(u, v, _w, out) {
    const x = u / ballRadius;
    const y = v / ballRadius;
    setNormal(out, x, y, Math.sqrt(Math.max(0.0025, 1 - x * x - y * y)));
  },
  stripe: (u, v) => (0.35 * u + 0.94 * v) / 0.76 + 0.25,
  base: ballRadius,
  reach: ballRadius,
  foot: 0.55,
};

// Seen a little from the right and from above: a front, and a strip of the top and of the right side.
const cubeFront = { left: -0.87, right: 0.5, top: -0.5, bottom: 0.87 };
const cubeShift = 0.37;
const cube: ShapeGeometry = {
  distance(u, v) {
    const box = Math.max(
      cubeFront.left - u,
      u - cubeFront.right - cubeShift,
      cubeFront.top - cubeShift - v,
      v - cubeFront.bottom,
    );
    // The two corners that the shift cuts off.
    const upper = (cubeFront.left - u - (v - cubeFront.top)) * Math.SQRT1_2;
    const lower = (u - cubeFront.right + (v - cubeFront.bottom)) * Math.SQRT1_2;
    return Math.max(box, upper, lower);
  },
  normal(u, v, w, out) {
    const side = clamp(
      0.5 + Math.min(u - cubeFront.right, u - cubeFront.right + v - cubeFront.top) / w,
      0,
      1,
    );
    const top =
      (1 - side) *
      clamp(0.5 + Math.min(cubeFront.top - v, cubeFront.top - v + cubeFront.right - u) / w, 0, 1);
    const front = 1 - side - top;
    out.x = 0.85 * side - 0.12 * front;
    out.y = 0.12 * side - 0.93 * top - 0.08 * front;
    out.z = 0.5 * side + 0.37 * top + 0.99 * front;
  },
  stripe: (u, v) => {
    // Bands around the front and the right side; on the top they go back.
    const back = clamp(Math.min(u - cubeFront.right, cubeShift), 0, 1);
    return v < cubeFront.top && u - cubeFront.right < cubeFront.top - v
      ? (u + v - cubeFront.top) / 0.56 + 0.3
      : (v + back - cubeFront.top) / 0.56 - 0.25;
  },
  base: cubeFront.bottom,
  reach: 1.24,
  foot: 0.75,
};

const drum = { width: 0.72, height: 0.68, rim: 0.24 };
const bulge = (u: number, width: number, rim: number) =>
  rim * Math.sqrt(Math.max(0, 1 - (u * u) / (width * width)));
const cylinder: ShapeGeometry = {
  distance(u, v) {
    const beyond = Math.abs(v) - drum.height;
    return beyond > 0 ? ellipseDistance(u, beyond, drum.width, drum.rim) : Math.abs(u) - drum.width;
  },
  normal(u, v, w, out) {
    const across = clamp(u / drum.width, -0.98, 0.98);
    const top = clamp(0.5 + (bulge(u, drum.width, drum.rim) - drum.height - v) / w, 0, 1);
    out.x = across * (1 - top);
    out.y = -0.93 * top;
    out.z = Math.sqrt(1 - across * across) * (1 - top) + 0.37 * top;
  },
  stripe(u, v) {
    const rim = bulge(u, drum.width, drum.rim);
    // Level bands that bend with the side; the lid keeps the plain colour.
    return v < rim - drum.height ? 0 : (v - rim + drum.height) / 0.56 - 0.27;
  },
  base: drum.height + drum.rim,
  reach: 1.02,
  foot: 0.7,
};

const tent = { apex: -1, foot: 0.7, width: 0.9, rim: 0.22 };
const tentSlope = tent.width / (tent.foot - tent.apex);
const cone: ShapeGeometry = {
  distance: (u, v) =>
    v > tent.foot
      ? ellipseDistance(u, v - tent.foot, tent.width, tent.rim)
      : (Math.abs(u) - (v - tent.apex) * tentSlope) * 0.884,
  normal(u, v, _w, out) {
    const half = Math.max(0.05, (v - tent.apex) * tentSlope);
    const across = clamp(u / half, -0.96, 0.96);
    setNormal(out, across, -0.3, Math.sqrt(1 - across * across));
  },
  stripe: (u, v) => (v - bulge(u, Math.max(0.05, (v - tent.apex) * tentSlope), tent.rim * 0.6)) / 0.6 + 0.3,
  base: tent.foot + tent.rim,
  reach: 1.16,
  foot: 0.8,
};

// Five points of radius `starPoint`; the valleys lie at `starValley` of it.
const starPoint = 1.12;
const starValley = 0.47;
const starEdge = (() => {
  const half = Math.PI / 5;
  const x = Math.sin(half) * starValley * starPoint;
  const y = Math.cos(half) * starValley * starPoint;
  const dx = x;
  const dy = y - starPoint;
  const length = Math.sqrt(dx * dx + dy * dy);
  return { nx: -dy / length, ny: dx / length };
})();
function starDistance(u: number, v: number): number {
  // Folds the plane into one tenth: between a point (up) and the valley on its right.
  const sector = (2 * Math.PI) / 5;
  const angle = Math.atan2(u, -v);
  const folded = Math.abs(angle - sector * Math.round(angle / sector));
  const radius = Math.sqrt(u * u + v * v);
  const x = radius * Math.sin(folded);
  const y = radius * Math.cos(folded);
  return x * starEdge.nx + (y - starPoint) * starEdge.ny;
}
const star: ShapeGeometry = {
  distance: starDistance,
  normal: pillow(starDistance, 10, 0.6),
  stripe: diagonal,
  base: starPoint * Math.cos(Math.PI / 5),
  reach: starPoint,
  foot: 0.6,
};

const heartScale = 1.72;
function heartDistance(u: number, v: number): number {
  const x = Math.abs(u) / heartScale;
  const y = (0.98 - v) / heartScale;
  if (x + y > 1) {
    const dx = x - 0.25;
    const dy = y - 0.75;
    return heartScale * (Math.sqrt(dx * dx + dy * dy) - Math.SQRT2 / 4);
  }
  const toTop = x * x + (y - 1) * (y - 1);
  const along = 0.5 * Math.max(x + y, 0);
  const toSide = (x - along) * (x - along) + (y - along) * (y - along);
  return heartScale * Math.sqrt(Math.min(toTop, toSide)) * (x < y ? -1 : 1);
}
const heart: ShapeGeometry = {
  distance: heartDistance,
  normal: pillow(heartDistance, 0.6, 1.2),
  stripe: diagonal,
  base: 0.98,
  reach: 1.14,
  foot: 0.35,
};

const torus = { radius: 0.72, tube: 0.29 };
const ring: ShapeGeometry = {
  distance: (u, v) => Math.abs(Math.sqrt(u * u + v * v) - torus.radius) - torus.tube,
  normal(u, v, _w, out) {
    const radius = Math.sqrt(u * u + v * v) + 1e-9;
    const across = clamp((radius - torus.radius) / torus.tube, -0.98, 0.98);
    setNormal(out, (u / radius) * across, (v / radius) * across, Math.sqrt(1 - across * across));
  },
  stripe: (u, v) => (Math.atan2(v, u) * 4) / Math.PI,
  base: torus.radius + torus.tube,
  reach: torus.radius + torus.tube,
  foot: 0.45,
};

const gem = { width: 0.86, height: 1.12, table: 0.42 };
const gemNormal = 1 / Math.sqrt(1 / gem.width ** 2 + 1 / gem.height ** 2);
const diamond: ShapeGeometry = {
  distance: (u, v) => (Math.abs(u) / gem.width + Math.abs(v) / gem.height - 1) * gemNormal,
  normal(u, v, w, out) {
    const level = Math.abs(u) / gem.width + Math.abs(v) / gem.height;
    const facet = clamp(0.5 + ((level - gem.table) * gemNormal) / w, 0, 1);
    out.x = 0.55 * facet * clamp((2 * u) / w, -1, 1);
    out.y = 0.48 * facet * clamp((2 * v) / w, -1, 1);
    out.z = 1 - 0.32 * facet;
  },
  stripe: (_u, v) => v / 0.62 + 0.25,
  base: gem.height,
  reach: gem.height,
  foot: 0.3,
};

const pill = { half: 0.62, radius: 0.52 };
const capsule: ShapeGeometry = {
  distance(u, v) {
    const x = Math.max(0, Math.abs(u) - pill.half);
    return Math.sqrt(x * x + v * v) - pill.radius;
  },
  normal(u, v, _w, out) {
    const x = (Math.sign(u) * Math.max(0, Math.abs(u) - pill.half)) / pill.radius;
    const y = v / pill.radius;
    setNormal(out, x, y, Math.sqrt(Math.max(0.0025, 1 - x * x - y * y)));
  },
  stripe: (u, v) => (u + 0.25 * v) / 0.62 + 0.25,
  base: pill.radius,
  reach: pill.half + pill.radius,
  foot: 0.8,
};

const plus = { arm: 0.36, length: 1, round: 0.07 };
function crossDistance(u: number, v: number): number {
  const x = Math.max(Math.abs(u), Math.abs(v));
  const y = Math.min(Math.abs(u), Math.abs(v));
  const dx = x - plus.length + plus.round;
  const dy = y - plus.arm + plus.round;
  if (dx > 0 && dy > 0) return Math.sqrt(dx * dx + dy * dy) - plus.round;
  // Inside the crossing the nearest outline is the inner corner.
  const inner =
    x < plus.arm ? -Math.sqrt((plus.arm - x) ** 2 + (plus.arm - y) ** 2) : Math.max(dx, dy) - plus.round;
  return inner;
}
const cross: ShapeGeometry = {
  distance: crossDistance,
  normal: pillow(crossDistance, 0.3, 1),
  stripe: diagonal,
  base: plus.length,
  reach: 1.07,
  foot: 0.4,
};

/** The geometry of every shape. */
export const geometries: { readonly [S in Shape]: ShapeGeometry } = {
  ball,
  cube,
  cylinder,
  cone,
  star,
  heart,
  ring,
  diamond,
  capsule,
  cross,
};

/**
 * Points around the outer outline of a shape, as u, v, u, v, ...: where rays from the centre, half a degree apart,
 * leave it last. Made once per shape.
 */
export function outline(shape: Shape): Float64Array {
  const known = outlines.get(shape);
  if (known !== undefined) return known;
  const { distance, reach } = geometries[shape];
  const points = new Float64Array(2 * raysPerOutline);
  for (let i = 0; i < raysPerOutline; i++) {
    const angle = (2 * Math.PI * i) / raysPerOutline;
    const u = Math.sin(angle);
    const v = -Math.cos(angle);
    let inside = 0;
    let outside = 1.1 * reach;
    // Outlines are star-shaped about the centre, but for the hole of the ring, which lies inside its rim.
    if (shape === 'ring') inside = torus.radius;
    for (let step = 0; step < 40; step++) {
      const middle = 0.5 * (inside + outside);
      if (distance(middle * u, middle * v) < 0) inside = middle;
      else outside = middle;
    }
    points[2 * i] = inside * u;
    points[2 * i + 1] = inside * v;
  }
  outlines.set(shape, points);
  return points;
}

const raysPerOutline = 720;
const outlines = new Map<Shape, Float64Array>();
