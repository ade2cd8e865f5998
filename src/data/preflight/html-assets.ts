/** The style of the report page; follows the reader's light or dark setting. */
export const pageStyle = `
:root { color-scheme: light dark; --ink: light-dark(#1c1e22, #e8e8ea); --quiet: light-dark(#6b7078, #9aa0a8);
  --page: light-dark(#f6f6f4, #16171a); --panel: light-dark(#fff, #1f2125); --line: light-dark(#e3e3df, #33363c);
  --whole: #2e9e6b; --trimmed: #2a9db5; --windows: #4a76d8; --retimed: #d89b1d; --skipped: #d2493f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
header, main { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
main { padding-bottom: 80px; }
h1 { font-size: 28px; margin: 2px 0 10px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font: 600 13px/1.3 ui-monospace, monospace; margin: 8px 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0; }
section, details { margin-top: 26px; }
.kind { color: var(--quiet); text-transform: uppercase; letter-spacing: .08em; font-size: 12px; }
.quiet { color: var(--quiet); font-weight: 400; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 16px; }
.bar { display: flex; gap: 2px; height: 26px; border-radius: 8px; overflow: hidden; }
.bar i { min-width: 3px; flex-basis: 0; }
.keys { display: flex; flex-wrap: wrap; gap: 6px 26px; list-style: none; padding: 0; margin: 12px 0 0; }
.keys b { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.whole { background: var(--whole); } .trimmed { background: var(--trimmed); } .windows { background: var(--windows); }
.retimed { background: var(--retimed); } .skipped { background: var(--skipped); }
.lost { background: repeating-linear-gradient(135deg, var(--quiet) 0 2px, transparent 2px 5px); }
.badge { color: #fff; border-radius: 999px; padding: 1px 9px; font-size: 12px; white-space: nowrap; }
table { border-collapse: collapse; width: 100%; }
.histogram th { font-weight: 400; text-align: right; white-space: nowrap; padding: 1px 10px 1px 0; font-size: 13px; width: 1%; }
.histogram td:nth-child(2) { width: 98%; }
.histogram td:last-child { text-align: right; padding-left: 10px; color: var(--quiet); font-size: 13px; }
.histogram i { display: block; height: 13px; border-radius: 3px; background: var(--windows); opacity: .8; min-width: 2px; }
.rows th { text-align: left; color: var(--quiet); font-weight: 400; font-size: 13px; }
.rows td, .rows th { padding: 4px 14px 4px 0; vertical-align: top; border-bottom: 1px solid var(--line); }
.rows .amount { text-align: right; font-variant-numeric: tabular-nums; }
.rows .file { font: 12px ui-monospace, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; font-size: 17px; }
details ul { font: 13px/1.6 ui-monospace, monospace; padding-left: 20px; overflow-wrap: anywhere; max-height: 420px; overflow-y: auto; }
.groups { max-height: 560px; overflow-y: auto; }
.groups li { margin: 10px 0; }
figure { display: inline-block; vertical-align: top; margin: 0 12px 6px 0; width: 200px; }
figcaption { font: 11px ui-monospace, monospace; color: var(--quiet); overflow-wrap: anywhere; }
.filters { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; position: sticky; top: 0; z-index: 1; padding: 10px 0; background: var(--page); }
.filters input[type=search] { flex: 1 1 240px; padding: 7px 11px; font: inherit; border: 1px solid var(--line); border-radius: 8px; background: var(--panel); color: inherit; }
.filters output { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 14px; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 10px 12px 12px; font-size: 13px; content-visibility: auto; contain-intrinsic-size: auto 300px; }
.card[hidden] { display: none; }
.picture { height: 140px; border-radius: 6px; overflow: hidden; background: var(--page); display: flex; justify-content: center; align-items: center; }
.picture img { max-width: 100%; max-height: 100%; display: block; }
.picture.none::after { content: 'no picture'; color: var(--quiet); }
.timeline { display: flex; gap: 1px; height: 7px; margin-top: 6px; border-radius: 3px; overflow: hidden; }
.timeline i { flex-basis: 0; min-width: 2px; }
.caption { overflow-wrap: anywhere; }
.caption.none { color: var(--skipped); }
.reason { color: var(--quiet); }
`;

/** Filters the cards by outcome and by text; without it, the page shows them all. */
export const pageScript = `
const cards = [...document.querySelectorAll('.card')];
const boxes = [...document.querySelectorAll('.filters input[type=checkbox]')];
const search = document.querySelector('.filters input[type=search]');
const output = document.querySelector('.filters output');
const texts = cards.map((card) => card.textContent.toLowerCase());
function show() {
  const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const words = search.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  cards.forEach((card, i) => {
    card.hidden = !(chosen.has(card.dataset.outcome) && words.every((word) => texts[i].includes(word)));
    if (!card.hidden) shown++;
  });
  output.textContent = shown + ' of ' + cards.length;
}
for (const input of [...boxes, search]) input.addEventListener('input', show);
show();
`;
