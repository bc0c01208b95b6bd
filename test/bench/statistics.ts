/** Of raw samples, nearest rank. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** `median (lower quartile … upper quartile)` of what the rounds gave. */
export function spread(rounds: readonly number[], digits: number): string {
  const [low, middle, high] = [0.25, 0.5, 0.75].map((share) =>
    percentile(rounds, share).toFixed(digits),
  );
  return `${middle} (${low} … ${high})`;
}
