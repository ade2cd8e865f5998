import type { Shortfall } from '../read-types.ts';
import type { SourceTally } from './source.ts';

const count = (n: number, what: string): string => `${n} ${what}${n === 1 ? '' : 's'}`;

/**
 * Judges whether a file gave all the video it claims, so that no reading is ever silently short.
 *
 * @param tally what the source saw.
 * @param reachedEnd whether reading went to the end of the file; false when the wanted range or count was filled first.
 * @param given frames handed to the caller.
 * @returns undefined when nothing is missing.
 */
export function judge(tally: SourceTally, reachedEnd: boolean, given: number): Shortfall | undefined {
  const reasons: string[] = [];
  const { claimedFrames, claimedDuration, fromStart, rate } = tally;
  if (tally.brokenOff !== undefined) reasons.push(tally.brokenOff);
  if (tally.failed > 0) reasons.push(`${count(tally.failed, 'coded picture')} could not be decoded`);
  if (tally.damaged > 0) reasons.push(`${count(tally.damaged, 'frame')} damaged`);
  if (reachedEnd && fromStart) {
    const lost = tally.coded - tally.hidden - tally.failed - tally.frames;
    if (claimedFrames !== undefined && tally.coded < claimedFrames) {
      reasons.push(`the file claims ${count(claimedFrames, 'frame')} and holds ${tally.coded}`);
    } else if (lost > 0) {
      reasons.push(`${count(lost, 'coded picture')} gave no frame`);
    }
  }
  // A frame and a half of tolerance: containers round durations, and the last frame's own duration is often a guess.
  const slack = Math.max(1.5 / rate, 0.02);
  if (
    reachedEnd &&
    claimedDuration !== undefined &&
    tally.lastEnd + Math.max(0, tally.offset) < claimedDuration - slack
  ) {
    reasons.push(`video ends at ${seconds(tally.lastEnd)} of ${seconds(claimedDuration)} claimed`);
  }
  if (reasons.length === 0) return undefined;
  return {
    got: given,
    expected: fromStart && reachedEnd ? claimedFrames : undefined,
    reason: reasons.join('; '),
  };
}

function seconds(value: number): string {
  return `${value.toFixed(2)} s`;
}
