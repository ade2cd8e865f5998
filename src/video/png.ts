import { crc32, deflateSync } from 'node:zlib';
import type { Video } from './frames.ts';
import { frameAt } from './frames.ts';

const signature = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

/**
 * A frame as the bytes of a PNG file, 8-bit RGB (PNG specification, third edition). Needs no native library, so that
 * machines that only train can write pictures too; {@link writeVideo} of `write.ts` is the way for everything else.
 */
export function encodePng(video: Video, frame = 0): Uint8Array {
  const { width, height } = video;
  const pixels = frameAt(video, frame);
  const rows = new Uint8Array(height * (1 + 3 * width));
  for (let y = 0; y < height; y++) {
    // The byte before each row says that it is not filtered.
    rows.set(pixels.subarray(y * 3 * width, (y + 1) * 3 * width), y * (1 + 3 * width) + 1);
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2], 8); // 8 bits a channel, RGB
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows)), chunk('IEND')]);
}

function chunk(type: string, data = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(Buffer.from(type, 'latin1'), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}
