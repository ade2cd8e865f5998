import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.ts';
import type { MetricsLine } from './metrics.ts';

/** What a report shows. */
export interface ReportContent {
  /** Such as `transformer, micro`. */
  readonly title: string;
  readonly lines: readonly MetricsLine[];
}

/** Where a report is written and finds its samples. */
export interface ReportPaths {
  readonly report: string;
  /** Folder of `step-00001000.png` and so on; may be missing. */
  readonly samples: string;
}

/** In the folder of samples: what the rows of its sheets are, a list in JSON. */
export const captionsFile = 'rows.json';

const mostPoints = 400;
const newestSamples = 4;

/** Writes a run's report: one HTML file that asks for nothing else. */
export async function writeReport({ report, samples }: ReportPaths, content: ReportContent): Promise<void> {
  const names = (await readdir(samples).catch(() => [])).filter((name) => name.endsWith('.png')).sort();
  const pictures = await Promise.all(
    names.slice(-newestSamples).map(async (name) => ({
      name: name.replace(/\.png$/, ''),
      data: (await readFile(join(samples, name))).toString('base64'),
    })),
  );
  const captions = await readFile(join(samples, captionsFile), 'utf8').catch(() => '[]');
  await writeFileAtomic(report, reportHtml(content, pictures, JSON.parse(captions) as string[]));
}

/** A sample sheet: its name and its PNG in base64. */
export interface SamplePicture {
  readonly name: string;
  readonly data: string;
}

/** The report's text. @param captions what the rows of the sheets are. */
export function reportHtml(
  { title, lines }: ReportContent,
  pictures: readonly SamplePicture[],
  captions: readonly string[] = [],
): string {
  const last = lines.at(-1);
  const names = [...new Set(lines.flatMap((line) => Object.keys(line)))].filter((name) => name !== 'step');
  const summary =
    last === undefined
      ? 'No steps yet.'
      : `Step ${last.step}, loss ${figure(last.loss)}, ${figure(last.stepsPerSecond ?? 0)} steps a second.`;
  const charts = names.map((name) => chart(name, lines)).join('\n');
  const sheets = pictures
    .toReversed()
    .map(
      ({ name, data }) =>
        `<figure><figcaption>${escaped(name)}</figcaption><img alt="" src="data:image/png;base64,${data}"></figure>`,
    )
    .join('\n');
  const rows = captions.map((caption) => `<li>${escaped(caption)}</li>`).join('\n');
  const legend = rows === '' ? '' : `<p>Rows of the sheets, from above:</p>\n<ol>\n${rows}\n</ol>`;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${escaped(title)}</title>
<style>${style}</style>
<h1>${escaped(title)}</h1>
<p>${escaped(summary)}</p>
<main>
${charts}
</main>
${legend}
${sheets}
</html>
`;
}

const style = `
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color-scheme: light dark; }
h1 { font-size: 1.3rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
figcaption { font-weight: 600; }
svg { width: 100%; height: auto; background: color-mix(in srgb, currentColor 5%, transparent); }
path { fill: none; stroke-width: 1.5; }
.each { stroke: currentColor; opacity: 0.25; }
.mean { stroke: #c2410c; }
text { font-size: 10px; fill: currentColor; }
img { max-width: 100%; image-rendering: pixelated; margin-bottom: 1rem; }`;

const width = 320;
const height = 160;
const margin = 14;

/** A curve: every value faintly, an exponential mean over a twentieth of the run boldly. */
function chart(name: string, lines: readonly MetricsLine[]): string {
  const points = lines.flatMap((line) => {
    const value = line[name];
    return value === undefined ? [] : [{ step: line.step, value }];
  });
  const smooth = smoothed(points);
  const shown = thinned(points);
  const values = shown.map(({ value }) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0]?.step ?? 0, points.at(-1)?.step ?? 1];
  const place = ({ step, value }: Point) => {
    const x = margin + ((width - 2 * margin) * (step - first)) / Math.max(1, last - first);
    const y = height - margin - ((height - 2 * margin) * (value - low)) / (high - low || 1);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  const line = (series: readonly Point[]) => `M${series.map(place).join('L')}`;
  return `<figure><figcaption>${escaped(name)}: ${figure(smooth.at(-1)?.value ?? Number.NaN)}</figcaption>
<svg viewBox="0 0 ${width} ${height}"><path class="each" d="${line(shown)}"/><path class="mean" d="${line(thinned(smooth))}"/>
<text x="2" y="10">${figure(high)}</text><text x="2" y="${height - 3}">${figure(low)}</text>
<text x="${width - 2}" y="${height - 3}" text-anchor="end">step ${last}</text></svg></figure>`;
}

interface Point {
  readonly step: number;
  readonly value: number;
}

function smoothed(points: readonly Point[]): Point[] {
  const share = 1 / Math.max(1, points.length / 20);
  let mean = points[0]?.value ?? 0;
  return points.map(({ step, value }) => {
    mean += share * (value - mean);
    return { step, value: mean };
  });
}

function thinned(points: readonly Point[]): readonly Point[] {
  if (points.length <= mostPoints) return points;
  const every = points.length / mostPoints;
  return Array.from({ length: mostPoints }, (_, i) => points[Math.floor((i + 1) * every) - 1]).filter(
    (point) => point !== undefined,
  );
}

function figure(value: number): string {
  return Number.isFinite(value) ? Number(value.toPrecision(4)).toString() : '–';
}

function escaped(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
