import koffi from 'koffi';

/** `M_MMAP_THRESHOLD` of glibc's `mallopt`. */
const mmapThreshold = -3;

/**
 * Has the C library map allocations of 4 MiB and more from the system, and give them back when they are freed. By itself
 * glibc raises that threshold to 32 MiB as large blocks are freed; intermediate values of large models then fragment
 * its heap, which never shrinks: a third more memory at the peak, and no time won. This holds for the whole process.
 * Nothing is done where the C library is not glibc.
 */
export function returnLargeAllocations(): void {
  if (process.platform !== 'linux') return;
  try {
    koffi.load('libc.so.6').func('mallopt', 'int', ['int', 'int'])(mmapThreshold, 4 << 20);
  } catch {
    // Another C library, such as musl.
  }
}
