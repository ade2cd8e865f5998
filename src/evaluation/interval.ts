/** A share and what it may really be. */
export interface Proportion {
  readonly right: number;
  readonly asked: number;
  /** right / asked; 0 when nothing was asked. */
  readonly share: number;
  /** 95% confidence interval. */
  readonly low: number;
  readonly high: number;
}

/** The 97.5% point of the standard normal distribution. */
const z = 1.959964;

/** A share with its 95% confidence interval, Wilson's (1927), which holds for few trials and for shares near 0 or 1. */
export function proportion(right: number, asked: number): Proportion {
  if (asked === 0) return { right, asked, share: 0, low: 0, high: 1 };
  const share = right / asked;
  const scale = 1 / (1 + (z * z) / asked);
  const centre = scale * (share + (z * z) / (2 * asked));
  const half = scale * z * Math.sqrt((share * (1 - share)) / asked + (z * z) / (4 * asked * asked));
  return { right, asked, share, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
