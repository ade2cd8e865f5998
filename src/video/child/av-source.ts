import {
  AV_DISPOSITION_ATTACHED_PIC,
  AV_FRAME_FLAG_CORRUPT,
  AV_NOPTS_VALUE,
  AV_PKT_DATA_DISPLAYMATRIX,
  AV_PKT_FLAG_CORRUPT,
  AV_PKT_FLAG_DISCARD,
  AVERROR_EAGAIN,
  AVERROR_EOF,
  AVMEDIA_TYPE_VIDEO,
  AVSEEK_FLAG_BACKWARD,
} from 'node-av/constants';
import {
  Codec,
  CodecContext,
  Dictionary,
  FFmpegError,
  FormatContext,
  Frame,
  Packet,
  type Stream,
} from 'node-av/lib';
import { UserError } from '../../errors.ts';
import type { MediaInfo } from '../media-info.ts';
import { orientation } from './display-matrix.ts';
import { Converter } from './filter.ts';
import { checkPixels, targetSize } from './limits.ts';
import type { OpenAsk } from './protocol.ts';
import type { FrameSource, SourceFrame, SourceTally } from './source.ts';

// Containers that hold their own data. Playlists, image sequences and scripts would open other files.
const formats = 'mov,matroska,avi,flv,mpegts,mpeg,ogg,gif,apng,webp_anim';

// Containers whose duration is written down, for each stream or for the whole. Of the others FFmpeg derives it from the
// end of the very file.
const claimsOwnDuration = /^(mov|matroska|avi|gif)/;
const claimsWholeDuration = /^(matroska|flv)/;

interface Opened {
  readonly format: FormatContext;
  readonly stream: Stream;
  readonly decoder: CodecContext;
  /** Seconds per tick of every stream's clock, by index. */
  readonly secondsPerTick: readonly number[];
}

/** Reads the video stream of a container through FFmpeg. */
export class AvSource implements FrameSource {
  readonly info: MediaInfo;
  readonly #ask: OpenAsk;
  readonly #converter: Converter;
  readonly #packet = new Packet();
  readonly #secondsPerTick: number;
  readonly #rate: number;
  #opened: Opened;
  /** Ticks of the first frame, which is time 0. */
  #origin: bigint | undefined;
  /** How long before the wanted start to seek next, in seconds; Infinity: do not seek. */
  #lead: number;
  #draining = false;
  #fresh = true;
  #lastTime = -1;
  #lastEnd = 0;
  /** When the last packet of the other streams ends, in seconds of the container's clock. */
  #containerEnd = 0;
  #frames = 0;
  #coded = 0;
  /** Number of the last packet's place by its decoding time, counting empty places. */
  #lastSlot = -1;
  #hidden = 0;
  #failed = 0;
  #damaged = 0;
  #brokenOff: string | undefined;

  /** @throws UserError when the file is not one that can be read, or its pictures are larger than allowed. */
  constructor(ask: OpenAsk, bytes: number) {
    this.#ask = ask;
    this.#opened = open(ask);
    const { stream } = this.#opened;
    const { rotation, mirrored } = orientation(stream.codecpar.getCodedSideData(AV_PKT_DATA_DISPLAYMATRIX));
    this.info = describe(this.#opened, rotation, bytes);
    try {
      checkPixels(ask, this.info);
    } catch (error) {
      release(this.#opened);
      throw error;
    }
    this.#packet.alloc();
    this.#converter = new Converter({
      size: targetSize(ask, this.info),
      displayed: this.info,
      fit: ask.fit,
      rotation,
      mirrored,
      background: ask.background,
    });
    this.#secondsPerTick = stream.timeBase.num / stream.timeBase.den;
    this.#rate = this.info.rate ?? nominalRate(stream) ?? 25;
    // AVI has decoding times only, by which the first frame comes late: there the first frame itself is time 0, and
    // nothing is sought. Below a second, decoding from the beginning costs less than a seek that lands badly.
    const hasTimes = stream.startTime !== AV_NOPTS_VALUE && this.info.format !== 'avi';
    this.#origin = hasTimes ? (stream.startTime < 0n ? 0n : stream.startTime) : undefined;
    this.#lead = hasTimes && ask.start > 1 ? 0.25 : Number.POSITIVE_INFINITY;
    this.#seek();
  }

  async next(): Promise<SourceFrame | undefined> {
    for (;;) {
      const frame = this.#decode();
      if (!frame) return undefined;
      const time = this.#timeOf(frame);
      if (this.#fresh && this.#lead !== Number.POSITIVE_INFINITY && time > this.#ask.start + 1e-6) {
        // The seek went past the wanted start (indexes hold decoding times): go back further.
        frame.free();
        this.#lead = this.#lead < 1 ? 5 : Number.POSITIVE_INFINITY;
        this.#reopen();
        continue;
      }
      this.#fresh = false;
      if (time < 0) {
        frame.free();
        this.#hidden++;
        continue;
      }
      return this.#give(frame, time);
    }
  }

  tally(): SourceTally {
    const { stream, format } = this.#opened;
    const container = format.iformat?.name ?? '';
    const own = claimsOwnDuration.test(container) ? streamDuration(stream, format) : undefined;
    const whole = claimsWholeDuration.test(container) ? ticks(format.duration, 1e-6) : undefined;
    const origin = Number(this.#origin ?? 0n) * this.#secondsPerTick;
    // An empty chunk in an AVI is not given as a packet; it claims a frame and means "as before".
    const empty = this.info.format === 'avi' ? Math.max(0, this.#lastSlot + 1 - this.#coded) : 0;
    return {
      fromStart: this.#lead === Number.POSITIVE_INFINITY,
      frames: this.#frames,
      coded: this.#coded + empty,
      hidden: this.#hidden + empty,
      failed: this.#failed,
      damaged: this.#damaged,
      claimedFrames: this.info.frames,
      claimedDuration: own ?? whole,
      // A claim for the whole container is met when any of its streams gets there.
      lastEnd: own === undefined ? Math.max(this.#lastEnd, this.#containerEnd - origin) : this.#lastEnd,
      // Fragmented MP4 and FLV count their duration from 0 even when the first frame comes later.
      offset: /^(mov|flv)/.test(container) ? origin : 0,
      rate: this.#rate,
      brokenOff: this.#brokenOff,
    };
  }

  close(): void {
    this.#converter.close();
    this.#packet.free();
    release(this.#opened);
  }

  #give(frame: Frame, time: number): SourceFrame {
    const duration = frame.duration > 0n ? Number(frame.duration) * this.#secondsPerTick : 1 / this.#rate;
    this.#frames++;
    this.#lastTime = time;
    this.#lastEnd = time + duration;
    if ((frame.flags & AV_FRAME_FLAG_CORRUPT) !== 0 || frame.decodeErrorFlags !== 0) this.#damaged++;
    let pixels: Uint8Array | undefined;
    return {
      time,
      duration,
      pixels: () => {
        pixels ??= this.#converter.convert(frame);
        return pixels;
      },
      free: () => frame.free(),
    };
  }

  /**
   * Seconds since the first frame; negative when the container's clock is, which means "not to be shown". Missing
   * times, and damaged ones that would go back, follow the frame before.
   */
  #timeOf(frame: Frame): number {
    const ticks = frame.bestEffortTimestamp;
    if (ticks === AV_NOPTS_VALUE) return this.#lastTime < 0 ? 0 : this.#lastTime + 1 / this.#rate;
    if (ticks < 0n) return Number(ticks) * this.#secondsPerTick;
    this.#origin ??= ticks;
    const time = Number(ticks - this.#origin) * this.#secondsPerTick;
    if (this.#lastTime >= 0 && time <= this.#lastTime)
      return this.#lastTime + Math.min(0.001, 0.5 / this.#rate);
    return Math.max(0, time);
  }

  #decode(): Frame | undefined {
    const { decoder } = this.#opened;
    const frame = new Frame();
    frame.alloc();
    for (;;) {
      const got = decoder.receiveFrameSync(frame);
      if (got >= 0) return frame;
      if (got === AVERROR_EOF) break;
      if (got !== AVERROR_EAGAIN) this.#failed++;
      else if (this.#draining) break;
      if (!this.#draining) this.#feed();
    }
    frame.free();
    return undefined;
  }

  /** Gives the decoder the next packet of the video, or tells it that there are no more. */
  #feed(): void {
    const { format, stream, decoder } = this.#opened;
    const packet = this.#packet;
    for (;;) {
      const read = format.readFrameSync(packet);
      if (read < 0) {
        if (read !== AVERROR_EOF)
          this.#brokenOff = `the file cannot be read further (${FFmpegError.strerror(read)})`;
        this.#draining = true;
        decoder.sendPacketSync(null);
        return;
      }
      if (packet.streamIndex === stream.index) break;
      const secondsPerTick = this.#opened.secondsPerTick[packet.streamIndex];
      if (secondsPerTick !== undefined && packet.pts !== AV_NOPTS_VALUE) {
        this.#containerEnd = Math.max(
          this.#containerEnd,
          Number(packet.pts + packet.duration) * secondsPerTick,
        );
      }
      packet.unref();
    }
    this.#coded++;
    if (packet.dts !== AV_NOPTS_VALUE)
      this.#lastSlot = Math.round(Number(packet.dts) * this.#secondsPerTick * this.#rate);
    if ((packet.flags & AV_PKT_FLAG_CORRUPT) !== 0) this.#brokenOff ??= 'a coded picture is cut off';
    const hidden = (packet.flags & AV_PKT_FLAG_DISCARD) !== 0 || isInvisible(this.info.codec, packet);
    if (hidden) this.#hidden++;
    const sent = decoder.sendPacketSync(packet);
    packet.unref();
    if (sent < 0 && sent !== AVERROR_EAGAIN) {
      if (hidden) this.#hidden--;
      this.#failed++;
    }
  }

  #seek(): void {
    if (this.#lead === Number.POSITIVE_INFINITY) return;
    const { format, stream } = this.#opened;
    const ticks = Math.floor(Math.max(0, this.#ask.start - this.#lead) / this.#secondsPerTick);
    const sought = format.seekFrameSync(
      stream.index,
      (this.#origin ?? 0n) + BigInt(ticks),
      AVSEEK_FLAG_BACKWARD,
    );
    if (sought >= 0) return;
    this.#lead = Number.POSITIVE_INFINITY;
    this.#reopen();
  }

  #reopen(): void {
    release(this.#opened);
    this.#opened = open(this.#ask);
    this.#draining = false;
    this.#lastTime = -1;
    this.#coded = 0;
    this.#hidden = 0;
    this.#failed = 0;
    this.#brokenOff = undefined;
    this.#seek();
  }
}

function open(ask: OpenAsk): Opened {
  const format = new FormatContext();
  const options = { protocol_whitelist: 'file', format_whitelist: formats, enable_drefs: '0' };
  const opened = format.openInputSync(`file:${ask.path}`, null, Dictionary.fromObject(options));
  if (opened < 0) {
    throw new UserError(
      `${ask.path}: not a media file that can be read (${FFmpegError.strerror(opened)}); check that it is complete`,
    );
  }
  let decoder: CodecContext | undefined;
  try {
    FFmpegError.throwIfError(format.findStreamInfoSync(), 'reading the headers');
    const index = format.findBestStream(AVMEDIA_TYPE_VIDEO);
    const stream = index < 0 ? undefined : format.streams[index];
    if (!stream || (stream.disposition & AV_DISPOSITION_ATTACHED_PIC) !== 0) {
      throw new UserError(
        `${ask.path}: holds no video that can be decoded (${contents(format)}); leave it out or fetch it again`,
      );
    }
    const codec = Codec.findDecoder(stream.codecpar.codecId);
    if (!codec) throw new UserError(`${ask.path}: no decoder for its video; convert it to H.264`);
    decoder = new CodecContext();
    decoder.allocContext3(codec);
    FFmpegError.throwIfError(decoder.parametersToContext(stream.codecpar), 'codec parameters');
    decoder.pktTimebase = stream.timeBase;
    decoder.threadCount = ask.threads;
    // Not through `open2`'s options: node-av 6.1.1 frees that dictionary twice.
    FFmpegError.throwIfError(
      decoder.setOption('max_pixels', String(ask.pixels)),
      'setting the limit on pixels',
    );
    FFmpegError.throwIfError(decoder.open2Sync(codec), 'opening the decoder');
    const secondsPerTick = format.streams.map(({ timeBase }) => timeBase.num / timeBase.den);
    return { format, stream, decoder, secondsPerTick };
  } catch (error) {
    decoder?.freeContext();
    format.closeInputSync();
    throw error;
  }
}

function release(opened: Opened): void {
  opened.decoder.freeContext();
  opened.format.closeInputSync();
}

function contents(format: FormatContext): string {
  if (format.nbStreams === 0) return 'no streams';
  return `${format.nbStreams} stream${format.nbStreams === 1 ? '' : 's'} of other kinds`;
}

function describe(opened: Opened, rotation: 0 | 90 | 180 | 270, bytes: number): MediaInfo {
  const { stream, format, decoder } = opened;
  const { codecpar } = stream;
  const coded = { width: decoder.width || codecpar.width, height: decoder.height || codecpar.height };
  const pixelAspect = aspect(stream.sampleAspectRatio) ?? aspect(codecpar.sampleAspectRatio) ?? 1;
  // As browsers do: the shorter direction is stretched, so that no pixel is lost.
  const width = pixelAspect > 1 ? Math.round(coded.width * pixelAspect) : coded.width;
  const height = pixelAspect < 1 ? Math.round(coded.height / pixelAspect) : coded.height;
  const turned = rotation === 90 || rotation === 270;
  return {
    format: containerName(format.iformat?.name ?? 'unknown'),
    codec: codecName(Codec.findDecoder(codecpar.codecId)?.name ?? 'unknown'),
    width: turned ? height : width,
    height: turned ? width : height,
    coded,
    rotation,
    pixelAspect,
    duration: streamDuration(stream, format) ?? ticks(format.duration, 1e-6),
    rate: claimedRate(stream, format),
    frames: stream.nbFrames > 0n ? Number(stream.nbFrames) : undefined,
    still: false,
    bytes,
  };
}

function containerName(name: string): string {
  if (name.startsWith('mov')) return 'mp4';
  return (name.split(',')[0] ?? name).replace('webp_anim', 'webp');
}

/** FFmpeg names some decoders after the library that does the work. */
function codecName(name: string): string {
  return name.replace(/^lib(dav1d|aom-av1)$/, 'av1').replace('webp_anim', 'webp');
}

function ticks(value: bigint, secondsPerTick: number): number | undefined {
  return value === AV_NOPTS_VALUE || value <= 0n ? undefined : Number(value) * secondsPerTick;
}

/** Seconds that the container claims for this stream alone. */
function streamDuration(stream: Stream, format: FormatContext): number | undefined {
  const own = ticks(stream.duration, stream.timeBase.num / stream.timeBase.den);
  if (own !== undefined) return own;
  const tag = /^(\d+):(\d+):(\d+(?:\.\d+)?)$/.exec(stream.metadata?.get('DURATION') ?? '');
  if (tag) return Number(tag[1]) * 3600 + Number(tag[2]) * 60 + Number(tag[3]);
  return format.nbStreams === 1 ? ticks(format.duration, 1e-6) : undefined;
}

/** Frames by duration for a GIF, whose delays are rounded to hundredths; the nominal rate of others. */
function claimedRate(stream: Stream, format: FormatContext): number | undefined {
  const duration = format.iformat?.name === 'gif' ? streamDuration(stream, format) : undefined;
  return duration && stream.nbFrames > 0n ? Number(stream.nbFrames) / duration : nominalRate(stream);
}

/** The average rate, unless it is not known or cannot be meant; then the rate that timestamps are multiples of. */
function nominalRate(stream: Stream): number | undefined {
  for (const { num, den } of [stream.avgFrameRate, stream.rFrameRate]) {
    const rate = num / den;
    if (rate > 0 && rate <= 240) return rate;
  }
  return undefined;
}

function aspect(ratio: { num: number; den: number }): number | undefined {
  const value = ratio.num / ratio.den;
  return value > 1 / 16 && value < 16 ? value : undefined;
}

/** Whether a packet by design gives no frame: VP8 and VP9 reference pictures, and MPEG-4 place holders. */
function isInvisible(codec: string, packet: Packet): boolean {
  if (codec === 'mpeg4') return packet.size <= 8;
  if (codec !== 'vp8' && codec !== 'vp9') return packet.size === 0;
  const first = packet.data?.[0] ?? 0;
  if (codec === 'vp8') return (first & 0x10) === 0;
  // VP9: marker (2 bits), profile (2), [reserved in profile 3], show existing frame, frame type, show frame.
  const profile3 = (first & 0x30) === 0x30;
  const shift = profile3 ? 0 : 1;
  const shown = ((first >> (2 + shift)) & 1) === 1 || ((first >> shift) & 1) === 1;
  return !shown && !isSuperframe(packet);
}

function isSuperframe(packet: Packet): boolean {
  const data = packet.data;
  return ((data?.[data.length - 1] ?? 0) & 0xe0) === 0xc0;
}
