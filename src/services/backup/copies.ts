import type { SnapshotRef, VolumeRef } from '../../drivers/driver.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Backends } from '../backends.ts'
import { using } from '../using.ts'
import { createChunkSlots } from './chunk-slots.ts'
import { backUpSome, type Parent, type Progress, restoreSome } from './copy.ts'
import type { BackupLocation, PageRecord } from './format.ts'
import type { BackupTarget } from './target.ts'

/** The steps of backups and restores that move bytes; see VolumeCopies. */
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

export function createBackupCopies({
  backends,
  target,
  clock,
}: {
  backends: Backends
  target: () => Promise<BackupTarget>
  clock: Pick<Clock, 'monotonicMs' | 'timer'>
}): BackupCopies {
  const slots = createChunkSlots(CHUNK_SLOTS, clock)
  const endOfSlice = () => {
    const endMs = clock.monotonicMs() + SLICE_MS
    return () => clock.monotonicMs() >= endMs
  }

  return {
    backUp: async ({ host, snapshot, ...step }) =>
      using(await backends.driverOf(host).openSnapshot(snapshot), async (source) =>
        backUpSome({ ...step, source, target: await target(), slots, isTimeUp: endOfSlice() }),
      ),
    restore: async ({ host, volume, ...step }) =>
      using(await backends.driverOf(host).openVolume(volume), async (data) =>
        restoreSome({ ...step, volume: data, target: await target(), slots, isTimeUp: endOfSlice() }),
      ),
  }
}
