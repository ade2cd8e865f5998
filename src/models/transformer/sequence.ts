import { fromFloat32, type HostTensor, hostTensor, zeros } from '../../tensor/host-tensor.ts';
import { at, elementCount, GraphError, type TensorType } from '../../tensor/shape.ts';
import { bytesPerToken } from '../text/caption-bytes.ts';
import type { TimeHeightWidth, TransformerConfig } from './config.ts';
import {
  byteTurns,
  placeFeatures,
  placesOf,
  type TokenTurns,
  textTurns,
  videoTurns,
} from './token-places.ts';

/** Static sizes of packed sequences: one compiled graph serves every packing that fits. */
export interface SequenceBudget {
  /** Rows, B; each is a packed sequence of its own. */
  readonly rows: number;
  /** Text tokens of a row, 4 bytes each. */
  readonly textTokens: number;
  /** Video tokens of a row, V. */
  readonly videoTokens: number;
  /** Most samples of a row, N. */
  readonly segments: number;
  /** Most conditions of a row, M: see {@link Sequence.conditions}. Default: two for each sample, known and not. */
  readonly conditions?: number;
}

/** What a sequence must know of one sample. */
export interface SequenceSample {
  /** From `captionBytes`. */
  readonly text: Uint8Array;
  /** Patches along each axis. */
  readonly grid: TimeHeightWidth;
  /** Indices of those of the grid's tokens that the sequence has, ascending. Default: all. */
  readonly tokens?: Int32Array | undefined;
  /** Timestep of each video token that the sequence has; text has 0. Default: all 0. */
  readonly timesteps?: Float32Array;
}

/** Where everything of packed rows is. Rows hold S = text + video tokens. */
export interface Sequence<Leaf> {
  /** Bytes of the captions, one after another, i32 [B, 4 text tokens]; 0 fills up. */
  readonly bytes: Leaf;
  /** Offsets of captions in `bytes`, i32 [B, N+1]. */
  readonly byteSegments: Leaf;
  /** Rotary angles of bytes, f32 [B, 4 text tokens, text head size / 2]. */
  readonly byteCos: Leaf;
  readonly byteSin: Leaf;
  /** For each place of the packed rows, its token among B text rows followed by B video rows, i32 [B, S]. */
  readonly order: Leaf;
  /** For each video token its place among the B S of the packed rows, i32 [B, V]. */
  readonly videoOrder: Leaf;
  /** Offsets of samples in the packed rows, i32 [B, N+1]; what lies behind the last is padding. */
  readonly segments: Leaf;
  /** Rotary angles of tokens, f32 [B, S, head size / 2]. */
  readonly cos: Leaf;
  readonly sin: Leaf;
  /** Where in its frame each video token is, f32 [B, V, 16]. */
  readonly places: Leaf;
  /**
   * What each place is modulated by, among the M conditions of its row, i32 [B, S]; -1 for padding. A condition is a sample
   * and a timestep that some of its tokens have: mostly there are two, 0 for text and what is known, and that of the rest.
   */
  readonly conditions: Leaf;
  /** Timestep of each condition, f32 [B, M]. */
  readonly timesteps: Leaf;
  /** Which text tokens are of a condition's sample: 1 / count for these, f32 [B, M, text tokens]. */
  readonly textMeans: Leaf;
}

/** Types of a sequence's tensors, for tracing. */
export function sequenceTypes(config: TransformerConfig, budget: SequenceBudget): Sequence<TensorType> {
  const { rows, textTokens, videoTokens, segments } = budget;
  const M = conditionsOf(budget);
  const [S, bytes] = [textTokens + videoTokens, bytesPerToken * textTokens];
  const i32 = (...shape: number[]): TensorType => ({ shape, dtype: 'i32' });
  const f32 = (...shape: number[]): TensorType => ({ shape, dtype: 'f32' });
  return {
    bytes: i32(rows, bytes),
    byteSegments: i32(rows, segments + 1),
    byteCos: f32(rows, bytes, config.text.headSize / 2),
    byteSin: f32(rows, bytes, config.text.headSize / 2),
    order: i32(rows, S),
    videoOrder: i32(rows, videoTokens),
    segments: i32(rows, segments + 1),
    cos: f32(rows, S, config.headSize / 2),
    sin: f32(rows, S, config.headSize / 2),
    places: f32(rows, videoTokens, placeFeatures),
    conditions: i32(rows, S),
    timesteps: f32(rows, M),
    textMeans: f32(rows, M, textTokens),
  };
}

function conditionsOf({ segments, conditions = 2 * segments }: SequenceBudget): number {
  return conditions;
}

/** Video tokens of a sample. */
export function videoTokensOf([time, height, width]: TimeHeightWidth): number {
  return time * height * width;
}

/**
 * Copies the values of some tokens to `out`, one after the other from `offset` on.
 * @param values of all tokens, [tokens, width].
 */
export function pickTokens<Values extends Float32Array | Uint16Array>(
  values: Values,
  width: number,
  tokens: Int32Array,
  out: Values,
  offset = 0,
): void {
  for (const [i, token] of tokens.entries())
    out.set(values.subarray(token * width, (token + 1) * width), offset + i * width);
}

/**
 * Lays out rows of samples: the tensors that a compiled transformer takes.
 *
 * Video tokens turn by their patch's [t, h, w], text tokens by [-1 - n, 0, 0] for the n-th token of a caption: text lies
 * before the first frame, at the same distance from it whatever the caption's length. Tokens that a sample leaves out
 * change nothing for those it has: each brings its own position and place.
 *
 * @param rows at most `budget.rows` lists of samples; rows that are left out are padding.
 * @throws GraphError when a row exceeds the budget, or a sample has a token that is not of its grid, or not a timestep for
 * each token.
 */
export function layoutSequence(
  config: TransformerConfig,
  budget: SequenceBudget,
  rows: readonly (readonly SequenceSample[])[],
): Sequence<HostTensor> {
  if (rows.length > budget.rows)
    throw new GraphError(`sequence: ${rows.length} rows of samples, the budget has ${budget.rows}`);
  const laid = Array.from({ length: budget.rows }, (_, row) =>
    layoutRow(config, budget, row, rows[row] ?? []),
  );
  const types = sequenceTypes(config, budget);
  const integers = (name: keyof Sequence<unknown>, pick: (row: Row) => Iterable<number>) =>
    hostTensor('i32', types[name].shape, Int32Array.from(laid.flatMap((row) => [...pick(row)])));
  const floats = (name: keyof Sequence<unknown>, pick: (row: Row) => Pieces) =>
    fromFloat32('f32', types[name].shape, joined(types[name], laid.map(pick)));
  return {
    bytes: integers('bytes', ({ bytes }) => bytes),
    byteSegments: integers('byteSegments', ({ byteSegments }) => byteSegments),
    byteCos: floats('byteCos', ({ byteTurns }) => byteTurns.map(({ cos }) => cos)),
    byteSin: floats('byteSin', ({ byteTurns }) => byteTurns.map(({ sin }) => sin)),
    order: integers('order', ({ order }) => order),
    videoOrder: integers('videoOrder', ({ videoOrder }) => videoOrder),
    segments: integers('segments', ({ segments }) => segments),
    cos: floats('cos', ({ turns }) => turns.map(({ cos }) => cos)),
    sin: floats('sin', ({ turns }) => turns.map(({ sin }) => sin)),
    places: floats('places', ({ places }) => places),
    conditions: integers('conditions', ({ conditions }) => conditions),
    timesteps: floats('timesteps', ({ timesteps }) => [Float32Array.from(timesteps)]),
    textMeans: textMeansOf(budget, laid, types.textMeans),
  };
}

/** Which text tokens are of which condition's sample. */
function textMeansOf(budget: SequenceBudget, rows: readonly Row[], type: TensorType): HostTensor {
  const means = zeros('f32', type.shape);
  rows.forEach(({ byteSegments, conditionSamples }, row) => {
    for (const [condition, sample] of conditionSamples.entries()) {
      const [start, end] = [
        at(byteSegments, sample) / bytesPerToken,
        at(byteSegments, sample + 1) / bytesPerToken,
      ];
      const offset = (row * conditionsOf(budget) + condition) * budget.textTokens;
      means.data.fill(1 / (end - start), offset + start, offset + end);
    }
  });
  return means;
}

/** Values that lie one after the other. */
type Pieces = readonly Float32Array[];

interface Row {
  readonly bytes: number[];
  readonly byteTurns: TokenTurns[];
  readonly byteSegments: number[];
  readonly order: number[];
  readonly videoOrder: number[];
  readonly segments: number[];
  readonly turns: TokenTurns[];
  readonly places: Float32Array[];
  readonly conditions: number[];
  /** Timestep and sample of each condition. */
  readonly timesteps: number[];
  readonly conditionSamples: number[];
}

function layoutRow(
  config: TransformerConfig,
  budget: SequenceBudget,
  row: number,
  samples: readonly SequenceSample[],
): Row {
  const { rows, textTokens, videoTokens, segments } = budget;
  checkRow(budget, row, samples);
  const out: Row = {
    bytes: [],
    byteTurns: [],
    byteSegments: [0],
    order: [],
    videoOrder: [],
    segments: [0],
    turns: [],
    places: [],
    conditions: [],
    timesteps: [],
    conditionSamples: [],
  };
  const [firstText, firstVideo] = [row * textTokens, rows * textTokens + row * videoTokens];
  const addText = (count: number) => {
    const first = firstText + out.bytes.length / bytesPerToken;
    for (let n = 0; n < count; n++) out.order.push(first + n);
  };
  const addVideo = (count: number) => {
    for (let n = 0; n < count; n++) {
      const token = out.videoOrder.length;
      out.videoOrder.push(row * (textTokens + videoTokens) + out.order.length);
      out.order.push(firstVideo + token);
    }
  };
  for (const [index, sample] of samples.entries()) {
    const { text } = sample;
    const words = text.length / bytesPerToken;
    addText(words);
    out.turns.push(first(textTurns(config.headSize, textTokens), words, config.headSize));
    for (const byte of text) out.bytes.push(byte);
    const ownBytes = byteTurns(config.text.headSize, bytesPerToken * textTokens);
    out.byteTurns.push(first(ownBytes, text.length, config.text.headSize));
    addVideo(tokensIn(sample));
    out.turns.push(turnsOf(sample, config.headSize));
    out.places.push(chosen(sample, placeFeatures, placesOf(...sample.grid)));
    addConditions(out, index, sample);
    out.byteSegments.push(out.bytes.length);
    out.segments.push(out.order.length);
  }
  const padding = videoTokens - out.videoOrder.length;
  addText(textTokens - out.bytes.length / bytesPerToken);
  addVideo(padding);
  const most = conditionsOf(budget);
  if (out.timesteps.length > most)
    throw new GraphError(`sequence row ${row}: ${out.timesteps.length} conditions; the budget is ${most}`);
  while (out.conditions.length < textTokens + videoTokens) out.conditions.push(-1);
  while (out.bytes.length < textTokens * bytesPerToken) out.bytes.push(0);
  // Segments that are not used are empty: they begin and end where the last sample ends.
  while (out.segments.length <= segments) {
    out.segments.push(at(out.segments, samples.length));
    out.byteSegments.push(at(out.byteSegments, samples.length));
  }
  return out;
}

/** Adds the conditions of a sample, each once: 0 is that of its text. */
function addConditions(out: Row, index: number, sample: SequenceSample): void {
  const { text, timesteps = new Float32Array(tokensIn(sample)) } = sample;
  const known = new Map<number, number>();
  const add = (timestep: number) => {
    const condition = known.get(timestep) ?? out.timesteps.length;
    if (!known.has(timestep)) {
      known.set(timestep, condition);
      out.timesteps.push(timestep);
      out.conditionSamples.push(index);
    }
    out.conditions.push(condition);
  };
  for (let n = 0; n < text.length / bytesPerToken; n++) add(0);
  for (const timestep of timesteps) add(timestep);
}

function checkRow(budget: SequenceBudget, row: number, samples: readonly SequenceSample[]): void {
  const text = samples.reduce((sum, sample) => sum + sample.text.length / bytesPerToken, 0);
  const video = samples.reduce((sum, sample) => sum + tokensIn(sample), 0);
  if (
    text > budget.textTokens ||
    video > budget.videoTokens ||
    samples.length > budget.segments ||
    !Number.isInteger(text)
  ) {
    throw new GraphError(
      `sequence row ${row}: ${samples.length} samples of ${text} text and ${video} video tokens; the budget is ` +
        `${budget.segments} samples of ${budget.textTokens} and ${budget.videoTokens}`,
    );
  }
  for (const sample of samples) {
    const { grid, tokens, timesteps } = sample;
    if (timesteps !== undefined && timesteps.length !== tokensIn(sample))
      throw new GraphError(
        `sequence row ${row}: ${timesteps.length} timesteps of ${tokensIn(sample)} video tokens`,
      );
    const outside = tokens?.find((token) => token < 0 || token >= videoTokensOf(grid));
    if (outside !== undefined)
      throw new GraphError(`sequence row ${row}: token ${outside} is not of a grid of ${grid.join('x')}`);
  }
}

/** Video tokens that a sample has in the sequence. */
function tokensIn({ grid, tokens }: SequenceSample): number {
  return tokens?.length ?? videoTokensOf(grid);
}

function turnsOf(sample: SequenceSample, headSize: number): TokenTurns {
  const { cos, sin } = videoTurns(headSize, ...sample.grid);
  return { cos: chosen(sample, headSize / 2, cos), sin: chosen(sample, headSize / 2, sin) };
}

/** Of values [tokens, width] of the whole grid, those of the tokens that a sample has. */
function chosen({ tokens }: SequenceSample, width: number, values: Float32Array): Float32Array {
  if (tokens === undefined) return values;
  const out = new Float32Array(tokens.length * width);
  pickTokens(values, width, tokens, out);
  return out;
}

/** The first `count` of some tokens' turns. */
function first({ cos, sin }: TokenTurns, count: number, headSize: number): TokenTurns {
  const values = (count * headSize) / 2;
  return { cos: cos.subarray(0, values), sin: sin.subarray(0, values) };
}

/** The pieces of each row from the row's start on; what they leave of a row is 0. */
function joined({ shape }: TensorType, rows: readonly Pieces[]): Float32Array {
  const out = new Float32Array(elementCount(shape));
  rows.forEach((pieces, row) => {
    let offset = (row * out.length) / rows.length;
    for (const piece of pieces) {
      out.set(piece, offset);
      offset += piece.length;
    }
  });
  return out;
}
