import { describe, expect, it } from 'vitest';
import { shapes } from '../../../src/data/worlds/scene.ts';
import { geometries, type Normal, outline } from '../../../src/data/worlds/shapes.ts';

describe.each(shapes)('%s', (shape) => {
  const geometry = geometries[shape];
  const points = outline(shape);
  const pairs = Array.from(
    { length: points.length / 2 },
    (_, i) => [points[2 * i]!, points[2 * i + 1]!] as const,
  );

  it('stands on its base and fits its reach', () => {
    const lowest = Math.max(...pairs.map(([, v]) => v));
    const farthest = Math.max(...pairs.map(([u, v]) => Math.hypot(u, v)));
    expect(lowest).toBeCloseTo(geometry.base, 2);
    expect(farthest).toBeLessThanOrEqual(geometry.reach + 1e-6);
    expect(farthest).toBeGreaterThan(geometry.reach - 0.03);
  });

  it('has a distance that becomes coverage: its slope across the outline is near 1', () => {
    const h = 1e-4;
    const slopes = pairs.map(([u, v]) => {
      const du = (geometry.distance(u + h, v) - geometry.distance(u - h, v)) / (2 * h);
      const dv = (geometry.distance(u, v + h) - geometry.distance(u, v - h)) / (2 * h);
      return Math.hypot(du, dv);
    });
    slopes.sort((a, b) => a - b);
    // All but the corners, where the slope is not defined.
    const most = slopes.slice(slopes.length * 0.03, slopes.length * 0.97);
    expect(most[0]).toBeGreaterThan(0.7);
    expect(most.at(-1)).toBeLessThan(1.3);
  });

  it('has normals of length 1, or less where facets meet, that never face away', () => {
    const normal: Normal = { x: 0, y: 0, z: 0 };
    for (let u = -1.2; u < 1.2; u += 0.05) {
      for (let v = -1.2; v < 1.2; v += 0.05) {
        if (geometry.distance(u, v) > 0) continue;
        geometry.normal(u, v, 0.1, normal);
        expect(Math.hypot(normal.x, normal.y, normal.z)).toBeLessThan(1.02);
        expect(normal.z).toBeGreaterThan(0);
      }
    }
  });
});
