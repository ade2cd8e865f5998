import type { AutoencoderQuality } from './autoencoder-quality.ts';
import type { FlowLossAt } from './flow-loss.ts';
import type { ClipShape } from './held-out-clips.ts';
import type { PromptResult } from './prompt-accuracy.ts';
import { accuracyOf } from './score.ts';

/** What was measured at one size. Parts that were not asked for, or not reached, are absent. */
export interface SizeReport {
  readonly shape: ClipShape;
  readonly prompts?: readonly PromptResult[];
  readonly autoencoder?: AutoencoderQuality;
  readonly flow?: readonly FlowLossAt[];
}

/** An evaluation as its file has it. */
export interface EvaluationReport {
  readonly format: typeof reportFormat;
  /** Everything that decides the results: an evaluation of other settings is another evaluation. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly sizes: readonly SizeReport[];
}

/** Names the form of {@link EvaluationReport}. */
export const reportFormat = 'zoetrope-evaluation-1';

/** The text of a report's file: JSON, with the figures of each size beside its results. */
export function reportJson({ format, settings, sizes }: EvaluationReport): string {
  const withFigures = sizes.map(({ shape, prompts, ...others }) => ({
    shape,
    ...(prompts && { accuracy: accuracyOf(prompts.map(({ score }) => score)) }),
    ...others,
    ...(prompts && { prompts }),
  }));
  return `${JSON.stringify({ format, settings, sizes: withFigures }, undefined, 1)}\n`;
}

/**
 * A report from the text of its file, if it is one and of these settings; else undefined, and the evaluation begins anew.
 */
export function resumedReport(
  text: string,
  settings: EvaluationReport['settings'],
): EvaluationReport | undefined {
  try {
    const found = JSON.parse(text) as Partial<EvaluationReport>;
    const isSame =
      found.format === reportFormat && JSON.stringify(found.settings) === JSON.stringify(settings);
    return isSame && Array.isArray(found.sizes) ? (found as EvaluationReport) : undefined;
  } catch {
    return undefined;
  }
}

/** `64x64x25`: width, height, frames. */
export function shapeName({ width, height, frames }: ClipShape): string {
  return `${width}x${height}x${frames}`;
}

/** The report as tables for reading. */
export function reportTable({ sizes }: EvaluationReport): string {
  return sizes.map(sizeTable).join('\n');
}

function sizeTable({ shape, prompts, autoencoder, flow }: SizeReport): string {
  const lines: string[] = [`${shapeName(shape)} at ${shape.rate} frames a second`];
  if (prompts !== undefined) {
    lines.push(row('', 'right', 'share', '95% interval'));
    for (const [name, { right, asked, share, low, high }] of Object.entries(
      accuracyOf(prompts.map(({ score }) => score)),
    )) {
      lines.push(row(name, `${right}/${asked}`, percent(share), `${percent(low)} to ${percent(high)}`));
    }
  }
  if (autoencoder !== undefined) {
    const { clips, psnr, leastPsnr, ssim, flicker } = autoencoder;
    lines.push(
      `  autoencoder on ${clips} clips: PSNR ${psnr.toFixed(2)} dB (worst clip ${leastPsnr.toFixed(2)}), ` +
        `SSIM ${ssim.toFixed(4)}, flicker ${flicker.toFixed(3)} of the originals'`,
    );
  }
  if (flow !== undefined) {
    const mean = flow.reduce((sum, { loss }) => sum + loss, 0) / flow.length;
    lines.push(`  flow loss ${mean.toFixed(4)}, by timestep:`);
    lines.push(`    ${flow.map(({ timestep }) => timestep.toFixed(2).padStart(7)).join('')}`);
    lines.push(`    ${flow.map(({ loss }) => loss.toFixed(4).padStart(7)).join('')}`);
  }
  return `${lines.join('\n')}\n`;
}

function row(name: string, right: string, share: string, interval: string): string {
  return `  ${name.padEnd(14)}${right.padStart(9)}${share.padStart(9)}   ${interval}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
