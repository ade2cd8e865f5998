import { outcomes } from '../plan.ts';
import type { ClipReport, DatasetReport } from './check.ts';
import type { Histogram } from './histogram.ts';
import { pageScript, pageStyle } from './html-assets.ts';
import {
  count,
  describeTotals,
  describeUse,
  describeWindow,
  groupReasons,
  number,
  outcomeNames,
  printable,
} from './text.ts';

/** Clips that get a card on the page; the page says so when there are more. */
const mostCards = 10_000;
/** Lines in a list of problems or duplicates. */
const mostLines = 5_000;

/**
 * The report as one HTML page that needs nothing beside it: no network, no other file.
 *
 * @param thumbnails data URLs of pictures by file.
 */
export function reportPage(report: DatasetReport, thumbnails: ReadonlyMap<string, string>): string {
  const { totals } = report;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Dataset check: ${escapeHtml(report.path)}</title>
<style>${pageStyle}</style>
<header>
<p class="kind">Zoetrope dataset check</p>
<h1>${escapeHtml(report.path)}</h1>
<p>${escapeHtml(describeTotals(totals))}</p>
<p class="quiet">For ${escapeHtml(describeWindow(report.window))}. ${escapeHtml(describeUse(totals))}</p>
</header>
<main>
${outcomeBar(report)}
<section class="columns">${report.histograms.map(histogram).join('')}</section>
${reasonTable(report.clips)}
${problemList(report, 'error', 'Errors')}
${problemList(report, 'warning', 'Warnings')}
${duplicateList('Same bytes', report.duplicates.exact, thumbnails)}
${duplicateList('Look the same', report.duplicates.near, thumbnails)}
${lines(`${count(report.ignored.length, 'file')} looked past: neither media nor caption, or hidden`, report.ignored)}
${cards(report, thumbnails)}
</main>
<script>${pageScript}</script>
</html>
`;
}

function outcomeBar({ totals }: DatasetReport): string {
  const present = outcomes.filter((outcome) => totals.outcomes[outcome] > 0);
  const parts = present.map(
    (outcome) =>
      `<i class="${outcome}" style="flex-grow:${totals.outcomes[outcome]}" title="${outcomeNames[outcome]}"></i>`,
  );
  const keys = outcomes.map((outcome) => {
    const value = totals.outcomes[outcome];
    const share = totals.clips === 0 ? 0 : (100 * value) / totals.clips;
    return `<li><b class="${outcome}"></b><strong>${number(value)}</strong> ${outcomeNames[outcome]} <span class="quiet">${share.toFixed(1)}%</span></li>`;
  });
  return `<section><div class="bar">${parts.join('')}</div><ul class="keys">${keys.join('')}</ul></section>`;
}

function histogram({ title, bars }: Histogram): string {
  const most = Math.max(1, ...bars.map((bar) => bar.count));
  const rows = bars.map(
    (bar) =>
      `<tr><th>${escapeHtml(bar.label)}</th><td><i style="width:${((100 * bar.count) / most).toFixed(1)}%"></i></td><td>${number(bar.count)}</td></tr>`,
  );
  return `<div class="panel"><h2>${escapeHtml(title)}</h2><table class="histogram">${rows.join('')}</table></div>`;
}

function reasonTable(clips: readonly ClipReport[]): string {
  const rows = groupReasons(clips).map(
    (group) =>
      `<tr><td class="amount">${number(group.count)}</td><td>${badge(group.outcome)}</td>` +
      `<td>${escapeHtml(group.reason)}</td><td class="quiet file">${escapeHtml(group.example)}</td></tr>`,
  );
  return `<section class="panel"><h2>What happens, and why</h2><table class="rows"><thead><tr><th>Clips</th><th></th><th>Reason</th><th>Example</th></tr></thead>${rows.join('')}</table></section>`;
}

function problemList(report: DatasetReport, severity: 'error' | 'warning', title: string): string {
  const chosen = report.problems.filter((problem) => problem.severity === severity);
  const texts = chosen.map(({ at, message }) => `${at}: ${message}`);
  return lines(`${title}: ${number(chosen.length)}`, texts, severity === 'error');
}

function lines(title: string, texts: readonly string[], isOpen = false): string {
  if (texts.length === 0) return '';
  const items = texts.slice(0, mostLines).map((text) => `<li>${escapeHtml(text)}</li>`);
  return `<details class="panel"${isOpen ? ' open' : ''}><summary>${escapeHtml(title)}</summary><ul>${items.join('')}</ul>${more(texts.length - mostLines)}</details>`;
}

function duplicateList(
  title: string,
  groups: readonly (readonly string[])[],
  thumbnails: ReadonlyMap<string, string>,
): string {
  if (groups.length === 0) return '';
  const items = groups.slice(0, mostLines).map((group) => {
    const members = group.map(
      (file) =>
        `<figure>${picture(thumbnails.get(file))}<figcaption>${escapeHtml(file)}</figcaption></figure>`,
    );
    return `<li>${members.join('')}</li>`;
  });
  const files = groups.reduce((sum, group) => sum + group.length, 0);
  return `<details class="panel"><summary>${escapeHtml(title)}: ${count(files, 'file')} in ${count(groups.length, 'group')}</summary><ol class="groups">${items.join('')}</ol>${more(groups.length - mostLines)}</details>`;
}

function more(left: number): string {
  return left > 0 ? `<p class="quiet">... and ${number(left)} more; <code>--json</code> has each.</p>` : '';
}

/** Clips that something happens to come first where not all of them fit; within that, the order of the dataset. */
function cards(report: DatasetReport, thumbnails: ReadonlyMap<string, string>): string {
  const { clips } = report;
  const notable = clips.filter(({ outcome }) => outcome !== 'whole');
  const plain = clips.filter(({ outcome }) => outcome === 'whole');
  const shown = clips.length <= mostCards ? clips : [...notable, ...plain].slice(0, mostCards);
  const filters = outcomes.map(
    (outcome) => `<label><input type="checkbox" checked value="${outcome}">${badge(outcome)}</label>`,
  );
  return `<section><h2>Every clip</h2>
<div class="filters">${filters.join('')}<input type="search" placeholder="Search names, captions, reasons" aria-label="Search"><output></output></div>
<div class="cards">${shown.map((clip) => card(clip, thumbnails.get(clip.file))).join('\n')}</div>${more(clips.length - shown.length)}</section>`;
}

function card(clip: ClipReport, thumbnail: string | undefined): string {
  const { media, captions, start, end } = clip;
  const range =
    start === 0 && end === null ? '' : `, from ${start} s to ${end === null ? 'the end' : `${end} s`}`;
  const facts =
    media.kind === 'none'
      ? ''
      : media.kind === 'still'
        ? `${media.width}x${media.height} ${media.codec}`
        : `${media.width}x${media.height} ${media.codec}, ${media.seconds.toFixed(2)} s, ${count(media.frames, 'frame')} at ${Number(media.rate.toFixed(2))} fps`;
  const texts = Object.entries(captions).map(
    ([level, text]) => `<p class="caption"><span class="quiet">${level}</span> ${escapeHtml(text)}</p>`,
  );
  const missing = texts.length === 0 ? '<p class="caption none">no caption</p>' : '';
  return (
    `<article class="card" data-outcome="${clip.outcome}">${picture(thumbnail)}${timeline(clip)}` +
    `<h3>${escapeHtml(clip.file)}</h3><p>${badge(clip.outcome)} <span class="quiet">${escapeHtml(facts + range)}</span></p>` +
    `<p class="reason">${escapeHtml(clip.reasons.join('; '))}</p>${texts.join('')}${missing}</article>`
  );
}

/** All frames of the file from left to right: windows in the colour of the outcome, what no window has hatched. */
function timeline({ windows, trimmed, outcome }: ClipReport): string {
  const pieces = [
    ...windows.map(({ source, frames }) => ({
      ...source,
      kind: outcome as string,
      text: count(frames, 'frame'),
    })),
    ...trimmed.map(({ from, to, reason }) => ({
      from,
      to,
      kind: 'lost',
      text: `${count(to - from, 'frame')}: ${reason}`,
    })),
  ].sort((a, b) => a.from - b.from);
  const parts = pieces.map(
    ({ from, to, kind, text }) =>
      `<i class="${kind}" style="flex-grow:${to - from}" title="${escapeHtml(text)}"></i>`,
  );
  return `<div class="timeline">${parts.join('')}</div>`;
}

function picture(url: string | undefined): string {
  return url === undefined
    ? '<div class="picture none"></div>'
    : `<div class="picture"><img alt="" src="${url}"></div>`;
}

function badge(outcome: ClipReport['outcome']): string {
  return `<span class="badge ${outcome}">${outcomeNames[outcome]}</span>`;
}

const entities: { readonly [character: string]: string } = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

function escapeHtml(text: string): string {
  return printable(text).replace(/[&<>"']/g, (character) => entities[character] ?? '');
}
