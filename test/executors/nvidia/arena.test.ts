import { expect, it } from 'vitest';
import { Arena } from '../../../src/executors/nvidia/arena.ts';
import type { Device } from '../../../src/executors/nvidia/device.ts';

/** A device that counts what is taken of it: no address is given twice. */
function deviceOf() {
  const taken = new Map<bigint, number>();
  let next = 0n;
  const memory = {
    allocate: (bytes: number) => {
      next += 512n;
      taken.set(next, bytes);
      return next;
    },
    release: (address: bigint) => taken.delete(address),
    trim: () => undefined,
  };
  return { device: { memory } as unknown as Device, taken };
}

it('grows for what needs more, and holds one block', () => {
  const { device, taken } = deviceOf();
  const arena = new Arena(device);
  const small = arena.require(100);
  expect(arena.require(50)).toBe(small);
  expect(arena.require(200)).not.toBe(small);
  expect([...taken.values()]).toEqual([200]);
});

it('leaves what is reserved where it is, whatever else grows', () => {
  const { device, taken } = deviceOf();
  const arena = new Arena(device);
  arena.require(100);
  arena.reserve(200);
  const address = arena.require(200);
  expect([...taken.values()]).toEqual([200]);
  const large = arena.require(300);
  expect(large).not.toBe(address);
  expect(arena.require(200)).toBe(address);
  expect(arena.require(400)).not.toBe(large);
  expect(arena.require(200)).toBe(address);
  expect([...taken.values()].sort()).toEqual([200, 400]);
  arena.reserve(150);
  expect(arena.require(200)).toBe(address);
  arena.reserve(500);
  expect(arena.require(400)).toBe(arena.require(500));
  expect([...taken.values()]).toEqual([500]);
});
