import {
  AV_PIX_FMT_RGBA,
  AVCHROMA_LOC_UNSPECIFIED,
  AVCOL_PRI_BT2020,
  AVCOL_RANGE_JPEG,
  AVCOL_SPC_RGB,
  AVCOL_TRC_ARIB_STD_B67,
  AVCOL_TRC_SMPTE2084,
  AVERROR_EAGAIN,
  type AVPixelFormat,
} from 'node-av/constants';
import { avGetPixFmtName, FFmpegError, Filter, FilterGraph, Frame } from 'node-av/lib';
import type { Size } from '../frames.ts';

/** How decoded pictures become the frames asked for. */
export interface Conversion {
  /** Size of the frames given, after rotation. */
  readonly size: Size;
  /** Size of the whole picture as displayed, after rotation, for the crop of `cover`. */
  readonly displayed: Size;
  readonly fit: 'stretch' | 'cover';
  /** Clockwise degrees to turn by, after mirroring left to right where `mirrored`. */
  readonly rotation: 0 | 90 | 180 | 270;
  readonly mirrored: boolean;
  /** Colour behind transparent pictures. */
  readonly background: readonly [number, number, number];
}

// zimg's names for the matrices of AVColorSpace; swscale knows fewer.
const matrices: { readonly [colorSpace: number]: string } = {
  0: 'gbr',
  1: '709',
  4: 'fcc',
  5: '470bg',
  6: '170m',
  7: '240m',
  8: 'ycgco',
  9: '2020_ncl',
  10: '2020_cl',
};
const swscaleMatrices: { readonly [matrix: string]: string } = {
  '709': 'bt709',
  fcc: 'fcc',
  '240m': 'smpte240m',
  '2020_ncl': 'bt2020',
  '2020_cl': 'bt2020',
};

/**
 * The size at which a picture covers `size` with no side stretched: at least `size` in both directions.
 * What sticks out is cropped evenly.
 */
export function coverSize(displayed: Size, size: Size): Size {
  const scale = Math.max(size.width / displayed.width, size.height / displayed.height);
  return {
    width: Math.max(size.width, Math.round(displayed.width * scale)),
    height: Math.max(size.height, Math.round(displayed.height * scale)),
  };
}

/** A filter of libavfilter and its arguments. */
export type FilterStep = readonly [name: string, args?: string];

// Planes to pixels, which changes no value. "Unstable" is swscale's rewrite with vector code for it: three times as fast.
const interleave: FilterStep = ['scale', 'flags=unstable'];

/**
 * The filters for pictures like `frame`, in order.
 *
 * zimg (`zscale`) scales with a bicubic filter that widens when it shrinks (no aliasing) and converts colour exactly, at
 * twice the speed of an equally exact swscale. Where only chroma is scaled its filter is linear, as in browsers and in
 * `color.ts`. It refuses 4:2:0 pictures of odd size and a few rare layouts, which take
 * the swscale path. Untagged video is BT.709 from 720 rows up and BT.601 below, as browsers have it. HDR is tone-mapped.
 */
export function filterChain(frame: Frame, conversion: Conversion): FilterStep[] {
  const { rotation, mirrored, size } = conversion;
  const shown = conversion.fit === 'cover' ? coverSize(conversion.displayed, size) : size;
  const turned = rotation === 90 || rotation === 270;
  const width = turned ? shown.height : shown.width;
  const height = turned ? shown.width : shown.height;
  const name = avGetPixFmtName(frame.format as AVPixelFormat) ?? 'unknown';
  const alpha = hasAlpha(name);
  const chain = alpha ? alphaChain(width, height) : opaqueChain(frame, name, width, height);
  if (mirrored) chain.push(['hflip']);
  if (rotation === 90) chain.push(['transpose', 'clock']);
  if (rotation === 180) chain.push(['hflip'], ['vflip']);
  if (rotation === 270) chain.push(['transpose', 'cclock']);
  if (size.width !== shown.width || size.height !== shown.height)
    chain.push(['crop', `${size.width}:${size.height}`]);
  chain.push(['format', alpha ? 'rgba' : 'rgb24']);
  return chain;
}

function hasAlpha(pixelFormat: string): boolean {
  return /^(yuva|rgba|bgra|argb|abgr|gbrap|ya8|ya16|pal8)/.test(pixelFormat);
}

// Colours are multiplied by alpha before scaling, so that invisible pixels do not bleed into the edge of visible ones.
function alphaChain(width: number, height: number): FilterStep[] {
  const resize: FilterStep = ['zscale', `w=${width}:h=${height}:filter=bicubic`];
  return [['scale'], ['format', 'gbrap'], ['premultiply', 'inplace=1'], resize, ['scale']];
}

function opaqueChain(frame: Frame, name: string, width: number, height: number): FilterStep[] {
  const rgb = /^(rgb|bgr|gbr|0rgb|0bgr)/.test(name) || frame.colorSpace === AVCOL_SPC_RGB;
  const guess = frame.height >= 720 ? '709' : '170m';
  const matrix = rgb ? 'gbr' : (matrices[frame.colorSpace] ?? guess);
  const full = rgb || name.startsWith('yuvj') || frame.colorRange === AVCOL_RANGE_JPEG;
  if (!zimgTakes(name, frame)) {
    const flags = 'bicubic+accurate_rnd+full_chroma_int+full_chroma_inp';
    const from = swscaleMatrices[matrix] ?? 'bt601';
    const color = rgb ? '' : `:in_color_matrix=${from}:in_range=${full ? 'pc' : 'tv'}:out_range=pc`;
    return [['scale', `w=${width}:h=${height}:flags=${flags}${color}`]];
  }
  const from = `matrixin=${matrix}:rangein=${full ? 'full' : 'limited'}${chroma(frame)}`;
  const filter = width === frame.width && height === frame.height ? 'bilinear' : 'bicubic';
  const resize = `w=${width}:h=${height}:filter=${filter}:${from}:matrix=gbr:range=full`;
  const hdr = frame.colorTrc === AVCOL_TRC_SMPTE2084 || frame.colorTrc === AVCOL_TRC_ARIB_STD_B67;
  if (!hdr) return [['zscale', resize], ['format', 'gbrp'], interleave];
  const primaries = frame.colorPrimaries === AVCOL_PRI_BT2020 ? '2020' : '709';
  const transfer = frame.colorTrc === AVCOL_TRC_SMPTE2084 ? 'smpte2084' : 'arib-std-b67';
  // 203 cd/m2 is the white of graphics in HDR (ITU-R BT.2408).
  return [
    ['zscale', `${resize}:transferin=${transfer}:primariesin=${primaries}:transfer=linear:npl=203`],
    ['format', 'gbrpf32le'],
    ['zscale', 'primaries=709:transfer=linear'],
    ['tonemap', 'mobius:desat=0'],
    ['zscale', 'transfer=709:range=full'],
    ['format', 'gbrp'],
    interleave,
  ];
}

function chroma(frame: Frame): string {
  return frame.chromaLocation === AVCHROMA_LOC_UNSPECIFIED ? ':chromalin=left' : '';
}

function zimgTakes(name: string, frame: Frame): boolean {
  const layout = /^yuvj?(4\d\d)p/.exec(name)?.[1];
  if (layout === '420') return frame.width % 2 === 0 && frame.height % 2 === 0;
  if (layout === '422') return frame.width % 2 === 0;
  return layout === '444' || /^(gbrp|rgb24|bgr24|rgb48)/.test(name);
}

/** Runs pictures through the filter chain; rebuilds it when the pictures change form in mid-stream. */
export class Converter {
  readonly #conversion: Conversion;
  readonly #output = new Frame();
  #packed: Buffer | undefined;
  #graph: FilterGraph | undefined;
  #convert: ((frame: Frame) => void) | undefined;
  #key = '';

  constructor(conversion: Conversion) {
    this.#conversion = conversion;
    this.#output.alloc();
  }

  /**
   * The picture as uint8 RGB [height, width, 3] of the size asked for: a view that holds until the next call.
   *
   * @throws FFmpegError when it cannot be converted.
   */
  convert(frame: Frame): Uint8Array {
    const { width, height, format, colorSpace, colorRange, colorTrc, colorPrimaries } = frame;
    const key = [width, height, format, colorSpace, colorRange, colorTrc, colorPrimaries].join();
    if (key !== this.#key || !this.#convert) {
      this.#convert = this.#build(frame);
      this.#key = key;
    }
    this.#output.unref();
    this.#convert(frame);
    return this.#pixels();
  }

  /** The output without FFmpeg's padding at the end of rows. Without padding, its own memory: a copy costs as much as scaling. */
  #pixels(): Uint8Array {
    const { width, height } = this.#conversion.size;
    const { data, linesize, format } = this.#output;
    const [plane] = data ?? [];
    const [stride] = linesize;
    if (!plane || !stride) throw new Error('filter gave no picture');
    if (format === AV_PIX_FMT_RGBA) return blend(plane, stride, this.#conversion);
    const row = width * 3;
    if (stride === row) return plane.subarray(0, row * height);
    this.#packed ??= Buffer.allocUnsafeSlow(row * height);
    for (let y = 0; y < height; y++) plane.copy(this.#packed, y * row, y * stride, y * stride + row);
    return this.#packed;
  }

  close(): void {
    this.#graph?.free();
    this.#graph = undefined;
    this.#output.free();
  }

  #build(frame: Frame): (frame: Frame) => void {
    this.#graph?.free();
    const graph = new FilterGraph();
    graph.alloc();
    // The decoder's threads keep the processor busy; slices handed to more of them come back late.
    graph.nbThreads = 1;
    this.#graph = graph;
    const form =
      `video_size=${frame.width}x${frame.height}:pix_fmt=${frame.format}:time_base=1/1000:pixel_aspect=1/1` +
      `:colorspace=${frame.colorSpace}:range=${frame.colorRange}`;
    const input = createFilter(graph, 'buffer', 'in', form);
    const output = createFilter(graph, 'buffersink', 'out');
    const steps = filterChain(frame, this.#conversion).map(([name, args], i) =>
      createFilter(graph, name, `f${i}`, args),
    );
    let last = input;
    for (const step of [...steps, output]) {
      FFmpegError.throwIfError(last.link(0, step, 0), 'filter');
      last = step;
    }
    FFmpegError.throwIfError(graph.configSync(), 'filter');
    return (next) => {
      FFmpegError.throwIfError(input.buffersrcAddFrameSync(next), 'filter');
      const got = output.buffersinkGetFrameSync(this.#output);
      if (got === AVERROR_EAGAIN) throw new Error('filter gave no frame');
      FFmpegError.throwIfError(got, 'filter');
    };
  }
}

function createFilter(graph: FilterGraph, type: string, name: string, args?: string) {
  const filter = Filter.getByName(type);
  const context = filter && graph.createFilter(filter, name, args ?? null);
  if (!context) throw new Error(`libavfilter cannot create ${type} ${args ?? ''}`);
  return context;
}

/** Premultiplied RGBA over a plain background. */
function blend(rgba: Uint8Array, stride: number, { size, background }: Conversion): Uint8Array {
  const rgb = new Uint8Array(size.width * size.height * 3);
  for (let y = 0, to = 0; y < size.height; y++) {
    for (let x = 0, from = y * stride; x < size.width; x++, from += 4, to += 3) {
      const through = 255 - (rgba[from + 3] ?? 0);
      for (let c = 0; c < 3; c++) {
        rgb[to + c] = Math.min(
          255,
          (rgba[from + c] ?? 0) + Math.round(((background[c] ?? 0) * through) / 255),
        );
      }
    }
  }
  return rgb;
}
