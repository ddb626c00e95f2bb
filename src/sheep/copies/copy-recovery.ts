import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { CopySequencer } from './copy-sequencer.ts'

export interface CopyRecoveryOptions {
  sequencer: CopySequencer
  /** The objects that the block map names. */
  objects(): readonly bigint[]
  clock: Clock
  bytesPerSecond: number
}

/** A step of the copying: small enough that a client's request does not wait long behind it. */
const STEP_BLOCKS = 64
const RETRY_MS = 1000

/**
 * Brings everything that the block map names to where it belongs. Resolves with the epoch in which nothing was missing and all of
 * it was on the disks: the caller may propose that it is clean up to there. While a target has no space it goes on trying.
 *
 * @throws StoreError of the sequencer: OldEpoch, Unsure.
 */
export async function recover({ sequencer, objects, clock, bytesPerSecond }: CopyRecoveryOptions): Promise<number> {
  for (;;) {
    const { epoch } = sequencer
    for (const oid of objects()) {
      for (;;) {
        const count = await sequencer.fill(oid, STEP_BLOCKS).catch(zeroWithoutSpace)
        if (count === 0) break
        await clock.sleep((1000 * count * BLOCK_BYTES) / bytesPerSecond)
      }
    }
    const isComplete = () => objects().every((oid) => sequencer.isComplete(oid)) && epoch === sequencer.epoch
    if (isComplete()) {
      await sequencer.flush()
      if (isComplete()) return epoch
    }
    await clock.sleep(RETRY_MS)
  }
}

function zeroWithoutSpace(error: unknown): number {
  if (error instanceof StoreError && error.code === 'NoSpace') return 0
  throw error
}
