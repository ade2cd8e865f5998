import { expect, it } from 'vitest';
import type { Driver } from '../../../src/executors/nvidia/bindings/driver.ts';
import { addressOf, bytesAt } from '../../../src/executors/nvidia/bindings/native.ts';
import { PinnedMemory } from '../../../src/executors/nvidia/pinned-memory.ts';

/** The driver's side of registering, which takes what `accepts` says. */
function openPinned(accepts: boolean) {
  const registered = new Map<bigint, number>();
  const driver = {
    cuMemHostRegister_v2: (address: bigint, size: number) => {
      if (accepts) registered.set(address, size);
      return accepts ? 0 : 712;
    },
    cuMemHostUnregister: (address: bigint) => (registered.delete(address) ? 0 : 713),
  } as unknown as Driver;
  return { pinned: new PinnedMemory(driver), registered };
}

it('pins whole pages within shared memory, and gives addresses of what lies in them alone', () => {
  const { pinned, registered } = openPinned(true);
  const memory = new SharedArrayBuffer(100_000);
  const [first, last] = [addressOf(memory), addressOf(memory) + 100_000n];
  const registration = pinned.register(memory);
  const [[address, size]] = [...registered] as [[bigint, number]];
  expect(address % 4096n).toBe(0n);
  expect(size % 4096).toBe(0);
  expect(address - first < 4096n && address >= first).toBe(true);
  expect(last - (address + BigInt(size)) < 4096n && address + BigInt(size) <= last).toBe(true);

  const bytes = new Uint8Array(memory, 4096, 64).fill(7);
  expect([...bytesAt(pinned.addressOf(bytes) ?? 0n, 64)]).toEqual([...bytes]);
  const before = Number(address - first);
  expect(pinned.addressOf(new Uint8Array(memory, 0, before + 1))).toBe(before === 0 ? first : undefined);
  expect(pinned.addressOf(new Uint8Array(memory, 4096))).toBe(
    last === address + BigInt(size) ? first + 4096n : undefined,
  );
  expect(pinned.addressOf(new Uint8Array(64))).toBeUndefined();

  registration[Symbol.dispose]();
  expect(registered.size).toBe(0);
  expect(pinned.addressOf(bytes)).toBeUndefined();
});

it('pins nothing that the driver refuses or that has no whole page', () => {
  const refused = openPinned(false);
  const memory = new SharedArrayBuffer(100_000);
  using _registration = refused.pinned.register(memory);
  expect(refused.pinned.addressOf(new Uint8Array(memory, 4096, 64))).toBeUndefined();
  const { pinned, registered } = openPinned(true);
  using _empty = pinned.register(new SharedArrayBuffer(0));
  expect(registered.size).toBe(0);
});
