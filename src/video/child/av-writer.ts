import { closeSync, fsyncSync, openSync } from 'node:fs';
import {
  AV_CODEC_FLAG_FRAME_DURATION,
  AV_CODEC_FLAG_GLOBAL_HEADER,
  AV_PIX_FMT_YUV420P,
  AVCHROMA_LOC_LEFT,
  AVCOL_PRI_BT709,
  AVCOL_RANGE_MPEG,
  AVCOL_SPC_BT709,
  AVCOL_TRC_BT709,
  AVERROR_EAGAIN,
  AVERROR_EOF,
  type FFEncoderCodec,
} from 'node-av/constants';
import {
  Codec,
  CodecContext,
  FFmpegError,
  FormatContext,
  Frame,
  Packet,
  Rational,
  type Stream,
} from 'node-av/lib';
import { UserError } from '../../errors.ts';
import { rgbToNearestI420 } from '../color.ts';
import type { Size } from '../frames.ts';
import { rationalRate } from '../rate.ts';
import type { FrameWriter } from './frame-writer.ts';
import type { CreateAsk } from './protocol.ts';

interface Coding {
  readonly encoder: 'libx264' | 'libvpx-vp9';
  readonly options: (quality: number, small: boolean) => Record<string, string>;
  readonly container: Record<string, string>;
}

// Rate factors are linear in quality; 80 is visually lossless, 41 to 46 dB on camera footage. Chroma gets finer steps than
// x264 gives it by itself: our frames have saturated edges, and 4:2:0 has hurt those already. Small pictures get finer
// steps altogether: they are shown enlarged, and 4:2:0 alone costs them most of the error that is bearable.
const smallPixels = 256 * 256;

const codings: { readonly [format in 'mp4' | 'webm']: Coding } = {
  mp4: {
    encoder: 'libx264',
    options: (quality, small) => ({
      preset: 'fast',
      crf: (37 - 0.3 * quality - (small ? 1 : 0)).toFixed(1),
      // Macroblock trees as x264 plans them with AVX-512 differ from run to run: the same frames must give the same file.
      'x264-params': 'chroma-qp-offset=-3:no-mbtree=1',
    }),
    container: { movflags: '+faststart' },
  },
  webm: {
    encoder: 'libvpx-vp9',
    options: (quality, small) => ({
      deadline: 'realtime',
      'cpu-used': small ? '2' : '6',
      'row-mt': '1',
      crf: Math.max(2, Math.round(60 - 0.55 * quality - (small ? 8 : 0))).toString(),
      b: '0',
    }),
    // Without this Matroska gives every file a random identifier.
    container: { fflags: '+bitexact' },
  },
};

/** H.264 in MP4 with its index in front, or VP9 in WebM: 4:2:0, tagged BT.709 limited. */
export class AvWriter implements FrameWriter {
  readonly #ask: CreateAsk;
  readonly #size: Size;
  readonly #ticksPerSecond: number;
  readonly #format = new FormatContext();
  readonly #encoder = new CodecContext();
  /** What the encoder gave last, and the one before it, which is written when its successor is there. */
  #packet = new Packet();
  #held = new Packet();
  #isHeld = false;
  /** In ticks: when the first packet is decoded, and when the last frame leaves the screen. */
  #firstDecoded: bigint | undefined;
  #end = 0n;
  readonly #stream: Stream;
  #opened = false;

  constructor(ask: CreateAsk) {
    this.#ask = ask;
    this.#size = ask.format === 'mp4' ? evenSize(ask) : ask.size;
    const coding = codings[ask.format === 'webm' ? 'webm' : 'mp4'];
    const codec = Codec.findEncoderByName(coding.encoder as FFEncoderCodec);
    if (!codec) throw new Error(`no encoder ${coding.encoder} in this build of FFmpeg`);
    const rate = rationalRate(ask.rate);
    // At least 10,000 ticks a second, and a whole number of them for a frame.
    this.#ticksPerSecond = rate.num * Math.ceil(10_000 / rate.num);
    const encoder = this.#encoder;
    encoder.allocContext3(codec);
    encoder.width = this.#size.width;
    encoder.height = this.#size.height;
    encoder.pixelFormat = AV_PIX_FMT_YUV420P;
    encoder.timeBase = new Rational(1, this.#ticksPerSecond);
    encoder.framerate = new Rational(rate.num, rate.den);
    encoder.sampleAspectRatio = new Rational(1, 1);
    encoder.colorSpace = AVCOL_SPC_BT709;
    encoder.colorPrimaries = AVCOL_PRI_BT709;
    encoder.colorTrc = AVCOL_TRC_BT709;
    encoder.colorRange = AVCOL_RANGE_MPEG;
    encoder.chromaLocation = AVCHROMA_LOC_LEFT;
    encoder.threadCount = ask.threads;
    encoder.setFlags(AV_CODEC_FLAG_GLOBAL_HEADER, AV_CODEC_FLAG_FRAME_DURATION);
    try {
      // Not through the options of `open2` and `writeHeader`: node-av 6.1.1 frees such a dictionary twice.
      const small = this.#size.width * this.#size.height <= smallPixels;
      setOptions(encoder, coding.options(ask.quality, small));
      check(encoder.open2Sync(codec), `${ask.name}: encoder`);
      check(this.#format.allocOutputContext2(null, ask.format, `file:${ask.path}`), `${ask.name}: container`);
      this.#stream = this.#format.newStream(null);
      this.#stream.timeBase = encoder.timeBase;
      this.#stream.avgFrameRate = encoder.framerate;
      this.#stream.sampleAspectRatio = encoder.sampleAspectRatio;
      check(this.#stream.codecpar.fromContext(encoder), `${ask.name}: container`);
      check(this.#format.openOutputSync(), ask.name);
      this.#opened = true;
      setOptions(this.#format, coding.container);
      check(this.#format.writeHeaderSync(), ask.name);
    } catch (error) {
      this.close();
      throw error;
    }
    this.#packet.alloc();
    this.#held.alloc();
  }

  async add(pixels: Uint8Array, time: number, duration: number): Promise<void> {
    const { width, height } = this.#size;
    const i420 = rgbToNearestI420(resized(pixels, this.#ask.size, this.#size), width, height);
    const frame = Frame.fromVideoBuffer(Buffer.from(i420.buffer), {
      width,
      height,
      format: AV_PIX_FMT_YUV420P,
      timeBase: { num: 1, den: this.#ticksPerSecond },
    });
    try {
      frame.pts = BigInt(Math.round(time * this.#ticksPerSecond));
      this.#end = BigInt(Math.round((time + duration) * this.#ticksPerSecond));
      frame.duration = this.#end - frame.pts;
      frame.colorSpace = AVCOL_SPC_BT709;
      frame.colorRange = AVCOL_RANGE_MPEG;
      check(this.#encoder.sendFrameSync(frame), this.#ask.name);
    } finally {
      frame.free();
    }
    this.#drain();
  }

  async finish(): Promise<void> {
    check(this.#encoder.sendFrameSync(null), this.#ask.name);
    this.#drain();
    if (this.#ask.format === 'mp4' && this.#isHeld) this.#stretchLast();
    this.#writeHeld();
    check(this.#format.writeTrailerSync(), this.#ask.name);
    this.#format.closeOutputSync();
    this.#opened = false;
    const file = openSync(this.#ask.path, 'r+');
    fsyncSync(file);
    closeSync(file);
  }

  close(): void {
    if (this.#opened) this.#format.closeOutputSync();
    this.#opened = false;
    this.#format.freeContext();
    this.#encoder.freeContext();
    this.#packet.free();
    this.#held.free();
  }

  #drain(): void {
    for (;;) {
      const got = this.#encoder.receivePacketSync(this.#packet);
      if (got === AVERROR_EAGAIN || got === AVERROR_EOF) return;
      check(got, this.#ask.name);
      this.#writeHeld();
      this.#firstDecoded ??= this.#packet.dts;
      [this.#packet, this.#held] = [this.#held, this.#packet];
      this.#isHeld = true;
    }
  }

  /**
   * MP4 has as the length of a track the sum of the times between packets in the order of decoding. At a variable rate
   * that may be less than is shown, and players stop there; so the last packet is decoded later, as late as it may be.
   */
  #stretchLast(): void {
    const last = this.#held;
    const first = this.#firstDecoded ?? last.dts;
    const wanted = first + this.#end - last.duration;
    if (last.dts >= wanted) return;
    last.dts = wanted;
    if (last.dts > last.pts) last.dts = last.pts;
    last.duration = this.#end - (last.dts - first);
  }

  #writeHeld(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#held.streamIndex = this.#stream.index;
    this.#held.rescaleTs({ num: 1, den: this.#ticksPerSecond }, this.#stream.timeBase);
    check(this.#format.interleavedWriteFrameSync(this.#held), this.#ask.name);
  }
}

function setOptions(target: CodecContext | FormatContext, options: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(options)) check(target.setOption(name, value), name);
}

function check(result: number, what: string): void {
  FFmpegError.throwIfError(result, what);
}

/** The size coded: H.264 with 4:2:0 chroma has even sides. */
function evenSize(ask: CreateAsk): Size {
  const { width, height } = ask.size;
  if (width % 2 === 0 && height % 2 === 0) return ask.size;
  if (ask.oddSize === 'error') {
    throw new UserError(
      `${ask.name}: ${width}x${height} for H.264, which needs even sizes; set oddSize to crop or pad`,
    );
  }
  const even = (side: number): number => (ask.oddSize === 'crop' ? side - (side % 2) : side + (side % 2));
  const size = { width: even(width), height: even(height) };
  if (size.width === 0 || size.height === 0)
    throw new UserError(`${ask.name}: nothing left of ${width}x${height}; pad it`);
  return size;
}

/** Leaves out, or repeats, the last column and row. */
function resized(pixels: Uint8Array, from: Size, to: Size): Uint8Array {
  if (from.width === to.width && from.height === to.height) return pixels;
  const out = new Uint8Array(to.width * to.height * 3);
  for (let y = 0; y < to.height; y++) {
    const row = Math.min(y, from.height - 1) * from.width * 3;
    out.set(pixels.subarray(row, row + Math.min(from.width, to.width) * 3), y * to.width * 3);
    if (to.width > from.width) {
      out.set(pixels.subarray(row + (from.width - 1) * 3, row + from.width * 3), (y + 1) * to.width * 3 - 3);
    }
  }
  return out;
}
