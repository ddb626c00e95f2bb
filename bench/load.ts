/** How long and how much to do: whatever comes first ends it. */
export interface Bounds {
  countMax: number
  durationMaxMs: number
}

export interface Load {
  perSecond: number
  /** Of each run, in milliseconds, in order of ending. */
  latenciesMs: number[]
}

/**
 * Runs `once` over and over, as many at a time as `concurrency` says. `worker` tells those apart that run side by side.
 * The first failure ends everything: a rate of errors is no rate. `isOver` may end it, too.
 */
export async function run(
  concurrency: number,
  { countMax, durationMaxMs }: Bounds,
  once: (worker: number) => Promise<unknown>,
  isOver: () => boolean = () => false,
): Promise<Load> {
  const latenciesMs: number[] = []
  const startMs = performance.now()
  let started = 0
  const work = async (worker: number) => {
    while (started < countMax && performance.now() - startMs < durationMaxMs && !isOver()) {
      started++
      const beforeMs = performance.now()
      await once(worker)
      latenciesMs.push(performance.now() - beforeMs)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, (_, worker) => work(worker)))
  return { perSecond: (latenciesMs.length * 1000) / (performance.now() - startMs), latenciesMs }
}

/** The value that `fraction` of all values do not exceed: 0.5 is the median, of an even number the lower one. */
export function percentile(values: readonly number[], fraction: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * fraction) - 1)]!
}
