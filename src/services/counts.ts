import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as volumes from '../db/volumes.ts'
import * as work from '../db/work.ts'
import type { Clock } from '../runtime/clock.ts'
import type { WorkCounts } from './work/unit-runner.ts'

/** How much there is of everything, for operators: sums over all projects. */
export interface ServiceCounts {
  /** By status. */
  volumes: Counts
  snapshots: Counts
  work: WorkCounts & {
    /** Units that run or wait, by kind. */
    units: Counts
  }
}

export type Counts = ReadonlyMap<string, number>

/** Counting reads every row, so it is done no more often. */
const MAX_AGE_MS = 10_000

/** Counts rows at most every ten seconds, and what the engine counts itself at each call. */
export function createCounts(db: Db, clock: Clock, engine: { counts(): WorkCounts }): () => Promise<ServiceCounts> {
  const count = async () => ({
    countedAtMs: clock.monotonicMs(),
    volumes: await volumes.countByStatus(db),
    snapshots: await snapshots.countByStatus(db),
    units: await work.countByKind(db),
  })
  let latest: Awaited<ReturnType<typeof count>> | null = null
  return async () => {
    if (latest === null || clock.monotonicMs() - latest.countedAtMs > MAX_AGE_MS) latest = await count()
    const { volumes, snapshots, units } = latest
    return { volumes, snapshots, work: { ...engine.counts(), units } }
  }
}
