import type { SnapshotRef, VolumeData, VolumeRef } from '../../drivers/driver.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Backends } from '../backends.ts'
import { createChunkSlots } from './chunk-slots.ts'
import { backUpSome, type Parent, type Progress, restoreSome } from './copy.ts'
import type { BackupLocation, PageRecord } from './format.ts'
import type { BackupTarget } from './target.ts'

/**
 * The steps of backups and restores that move bytes. What they are told and what they answer is plain data, since they are done on
 * another thread than that of whoever asks (src/backup-thread.ts): megabytes that pass through a heap as large as that of the service
 * have it collected again and again, and hold its requests up.
 *
 * They fail with a ServiceError, and may be repeated.
 */
export interface BackupCopies {
  backUp(step: BackUpStep): Promise<Progress>
  /** Answers the page to go on with. What was copied is durable. */
  restore(step: RestoreStep): Promise<number>
}

export interface BackUpStep {
  /** Of the volume: says which backend has it. */
  host: string
  snapshot: SnapshotRef
  location: BackupLocation
  parent: Parent | null
  /** To begin with. */
  page: number
}

export interface RestoreStep {
  /** Of the volume that is written to. */
  host: string
  volume: VolumeRef
  container: string
  pages: readonly PageRecord[]
  /** Of the volume that was backed up. */
  sizeBytes: number
  /** To begin with. */
  page: number
}

/** Of 8 MiB each at most, so that backups take 64 MiB in all, however many there are. */
const CHUNK_SLOTS = 8
/** A step begins with pages for so long: it is repeated as a whole when it is cut off, and tells how far it has come at its end. */
const SLICE_MS = 2000

/** Copies on the thread that asks. */
export function createBackupCopies({
  backends,
  target,
  clock,
}: {
  backends: Backends
  target: BackupTarget
  clock: Pick<Clock, 'monotonicMs' | 'timer'>
}): BackupCopies {
  const slots = createChunkSlots(CHUNK_SLOTS, clock)
  const endOfSlice = () => {
    const endMs = clock.monotonicMs() + SLICE_MS
    return () => clock.monotonicMs() >= endMs
  }

  return {
    backUp: async ({ host, snapshot, ...step }) =>
      using(await backends.driverOf(host).openSnapshot(snapshot), (source) =>
        backUpSome({ ...step, source, target, slots, isTimeUp: endOfSlice() }),
      ),
    restore: async ({ host, volume, ...step }) =>
      using(await backends.driverOf(host).openVolume(volume), (data) =>
        restoreSome({ ...step, volume: data, target, slots, isTimeUp: endOfSlice() }),
      ),
  }
}

/** Closes it at the end, however that is. */
export async function using<T>(data: VolumeData, use: (data: VolumeData) => Promise<T>): Promise<T> {
  try {
    return await use(data)
  } finally {
    await data.close()
  }
}
