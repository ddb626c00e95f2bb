/**
 * In which epochs an object was written: from, to, from, to … in order, both included. Never changed once somebody has it, so
 * that objects that were written in the same epochs share it.
 */
export type EpochRuns = readonly number[]

export const NO_EPOCHS: EpochRuns = []
/** More than these become fewer by closing the oldest gap: an object then counts as written in epochs in which it was not. */
export const EPOCH_RUNS_MAX = 8

/** `epoch` is the last, or one that is there. */
export function withEpoch(runs: EpochRuns, epoch: number): EpochRuns {
  const last = runs.at(-1)
  if (last === undefined) return [epoch, epoch]
  if (epoch <= last) return runs
  if (epoch === last + 1) return [...runs.slice(0, -1), epoch]
  const more = [...runs, epoch, epoch]
  if (more.length > EPOCH_RUNS_MAX * 2) more.splice(1, 2)
  return more
}

/** Without those up to `epoch`. */
export function epochsAfter(runs: EpochRuns, epoch: number): EpochRuns {
  if (runs.length === 0 || runs[0]! > epoch) return runs
  const rest: number[] = []
  for (let i = 0; i < runs.length; i += 2) {
    if (runs[i + 1]! > epoch) rest.push(Math.max(runs[i]!, epoch + 1), runs[i + 1]!)
  }
  return rest
}

/** One by one, from `epoch` on. */
export function epochsFrom(runs: EpochRuns, epoch: number): number[] {
  const epochs: number[] = []
  for (let i = 0; i < runs.length; i += 2) {
    for (let each = Math.max(runs[i]!, epoch); each <= runs[i + 1]!; each++) epochs.push(each)
  }
  return epochs
}
