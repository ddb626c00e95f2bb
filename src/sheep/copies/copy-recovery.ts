import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { CopySequencer } from './copy-sequencer.ts'

export interface CopyRecoveryOptions {
  sequencer: CopySequencer
  /** The objects that the block map names. */
  objects(): Iterable<bigint>
  /** Whether the block map names an object. */
  isNamed(oid: bigint): boolean
  /** Whether the block map may name an object soon: it is being made, and there may be copies of it. */
  isMaking(oid: bigint): boolean
  clock: Clock
  bytesPerSecond: number
}

/** A step of the copying: small enough that a client's request does not wait long behind it. */
const STEP_BLOCKS = 64
const RETRY_MS = 1000

/**
 * Brings everything that the block map names to where it belongs, and removes what it does not. Resolves with the epoch in which
 * nothing was missing and all of it was on the disks: the caller may propose that it is clean up to there. While a target has no
 * space it goes on trying.
 *
 * @throws StoreError of the sequencer: OldEpoch, Unsure.
 */
export async function recover(options: CopyRecoveryOptions): Promise<number> {
  const { sequencer, objects, isNamed, isMaking, clock } = options
  for (;;) {
    const { epoch, setbacks } = sequencer
    const isStill = () => epoch === sequencer.epoch && setbacks === sequencer.setbacks
    let isComplete = true
    for (const oid of objects()) isComplete = (await complete(oid, options)) && isComplete
    if (isComplete && isStill()) {
      await sequencer.removeUnnamed((oid) => isNamed(oid) || isMaking(oid))
      await sequencer.flush()
      if (isStill()) return epoch
    }
    await clock.sleep(RETRY_MS)
  }
}

/** Whether nothing of the object is missing now; what is not named any more misses nothing. */
async function complete(
  oid: bigint,
  { sequencer, isNamed, clock, bytesPerSecond }: CopyRecoveryOptions,
): Promise<boolean> {
  while (isNamed(oid)) {
    const bytes = await sequencer.fill(oid, STEP_BLOCKS).catch(nullForNow)
    if (bytes === null) return !isNamed(oid) || sequencer.isComplete(oid)
    if (bytes > 0) await clock.sleep((1000 * bytes) / bytesPerSecond)
  }
  return true
}

/** There is no space, it was removed, or what is missing is rotten everywhere. */
function nullForNow(error: unknown): null {
  if (error instanceof StoreError && ['NoSpace', 'NoObject', 'CorruptBlock'].includes(error.code)) return null
  throw error
}
