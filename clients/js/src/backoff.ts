// When to try again.

const FIRST_DELAY_MS = 1000;

/** Returns a pause after so many failures in a row: with full jitter, so that those who fail together do not come back together. */
export function pause(failures: number, maxMs: number): number {
  return Math.random() * Math.min(maxMs, FIRST_DELAY_MS * 2 ** Math.min(failures, 16));
}
