import sharp from 'sharp';
import { UserError } from '../errors.ts';
import { frameAt, type Video, videoFrom } from './frames.ts';

/** What a contact sheet shows. */
export interface ContactSheetOptions {
  /** Frames shown, evenly spaced from first to last; default 16, fewer when the video is shorter. */
  readonly frames?: number;
  /** Cells per row; default chosen so that the sheet is about one and a half times as wide as high. */
  readonly columns?: number;
  /** Longer side of a cell in pixels; default 256. Frames below half of it are enlarged by whole numbers, unfiltered. */
  readonly cell?: number;
}

const gap = 4;
const labelRows = 11;
const paper = 24;
const ink = 200;

/**
 * A picture (a video of one frame) of evenly spaced frames in a grid, each with its time in seconds below it: motion at a
 * glance. Write it with `writeVideo(sheet, 'sheet.png')`.
 *
 * @throws UserError when the video has no frames or an option is not a positive whole number.
 */
export async function contactSheet(video: Video, options: ContactSheetOptions = {}): Promise<Video> {
  if (video.frames === 0) throw new UserError('contact sheet: the video has no frames; give at least one');
  for (const [name, value] of Object.entries(options)) {
    if (!(Number.isInteger(value) && value > 0))
      throw new UserError(`contact sheet: ${name} ${value}; use 1 or more`);
  }
  const shown = evenlySpaced(video.frames, options.frames ?? 16);
  const cell = cellSize(video, options.cell ?? 256);
  const { width, height } = cell;
  const ratio = (1.5 * (height + labelRows + gap)) / (width + gap);
  const columns = Math.min(
    shown.length,
    options.columns ?? Math.max(1, Math.round(Math.sqrt(shown.length * ratio))),
  );
  const rows = Math.ceil(shown.length / columns);
  const sheetWidth = columns * (width + gap) + gap;
  const sheetHeight = rows * (height + labelRows + gap) + gap;
  const sheet = new Uint8Array(sheetWidth * sheetHeight * 3).fill(paper);
  for (const [i, index] of shown.entries()) {
    const left = gap + (i % columns) * (width + gap);
    const top = gap + Math.floor(i / columns) * (height + labelRows + gap);
    const pixels = await scaled(video, index, cell);
    for (let y = 0; y < height; y++) {
      const row = pixels.subarray(y * width * 3, (y + 1) * width * 3);
      sheet.set(row, ((top + y) * sheetWidth + left) * 3);
    }
    drawText(
      sheet,
      sheetWidth,
      left,
      top + height + 3,
      width,
      `${(video.timestamps[index] ?? 0).toFixed(2)}s`,
    );
  }
  return videoFrom(sheet, { width: sheetWidth, height: sheetHeight, rate: 1 });
}

function evenlySpaced(frames: number, most: number): number[] {
  const count = Math.min(frames, most);
  if (count === 1) return [0];
  return Array.from({ length: count }, (_, i) => Math.round((i * (frames - 1)) / (count - 1)));
}

interface Cell {
  readonly width: number;
  readonly height: number;
  /** Whether pixels are repeated, so that they can be counted, rather than interpolated. */
  readonly enlarged: boolean;
}

function cellSize(video: Video, longest: number): Cell {
  const scale = longest / Math.max(video.width, video.height);
  const factor = scale >= 2 ? Math.floor(scale) : Math.min(1, scale);
  return {
    width: Math.max(1, Math.round(video.width * factor)),
    height: Math.max(1, Math.round(video.height * factor)),
    enlarged: factor > 1,
  };
}

async function scaled(video: Video, index: number, cell: Cell): Promise<Uint8Array> {
  const frame = frameAt(video, index);
  if (cell.width === video.width && cell.height === video.height) return frame;
  const raw = { width: video.width, height: video.height, channels: 3 as const };
  const kernel = cell.enlarged ? 'nearest' : 'cubic';
  return await sharp(frame, { raw })
    .resize(cell.width, cell.height, { fit: 'fill', kernel })
    .raw()
    .toBuffer();
}

// 3x5 dots, rows from the top, left dot in the highest of three bits.
const glyphs: ReadonlyMap<string, readonly number[]> = new Map([
  ['0', [7, 5, 5, 5, 7]],
  ['1', [2, 6, 2, 2, 7]],
  ['2', [7, 1, 7, 4, 7]],
  ['3', [7, 1, 7, 1, 7]],
  ['4', [5, 5, 7, 1, 1]],
  ['5', [7, 4, 7, 1, 7]],
  ['6', [7, 4, 7, 5, 7]],
  ['7', [7, 1, 2, 2, 2]],
  ['8', [7, 5, 7, 5, 7]],
  ['9', [7, 5, 7, 1, 7]],
  ['.', [0, 0, 0, 0, 2]],
  ['s', [0, 3, 6, 3, 6]],
]);

/** Writes small figures, as far as they fit into `room` columns. */
function drawText(
  sheet: Uint8Array,
  sheetWidth: number,
  left: number,
  top: number,
  room: number,
  text: string,
): void {
  for (const [i, letter] of [...text].entries()) {
    if ((i + 1) * 4 > room) return;
    for (const [y, row] of (glyphs.get(letter) ?? []).entries()) {
      for (let x = 0; x < 3; x++) {
        if ((row & (4 >> x)) === 0) continue;
        const at = ((top + y) * sheetWidth + left + i * 4 + x) * 3;
        sheet.fill(ink, at, at + 3);
      }
    }
  }
}
