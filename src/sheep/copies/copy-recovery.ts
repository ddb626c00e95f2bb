import { StoreError } from '../../errors.ts'
import type { CopySequencer } from './copy-sequencer.ts'

export interface CopyRecoveryOptions {
  sequencer: CopySequencer
  /** What the block map named a moment ago. */
  oids: Iterable<bigint>
  /** Whether the block map names it still: copies of what it does not name are waited for in vain. */
  isNamed(oid: bigint): Promise<boolean>
  /** When it does not, what has not been looked at is not home. */
  goesOn(): boolean
  /** Runs a step of the copying, which says how many bytes it has copied, and resolves when there may be another one. */
  step(copy: () => Promise<number | null>): Promise<number | null>
  /** One of them is where it belongs. */
  done(): void
}

/** A step of the copying: small enough that a client's request does not wait long behind it. */
const STEP_BLOCKS = 64

/**
 * Brings objects to where they belong in the view in effect. Whether nothing of them was missing: it is when there is no space, or it is
 * rotten everywhere.
 *
 * @throws StoreError of the sequencer: OldEpoch, Unsure.
 */
export async function bringHome(options: CopyRecoveryOptions): Promise<boolean> {
  let isHome = true
  for (const oid of options.oids) {
    if (await bringObjectHome(oid, options)) options.done()
    else isHome = false
  }
  return isHome
}

/** Whether nothing of the object is missing; of one that was removed meanwhile nothing is. */
async function bringObjectHome(
  oid: bigint,
  { sequencer, isNamed, goesOn, step }: CopyRecoveryOptions,
): Promise<boolean> {
  while (goesOn()) {
    if (!(await isNamed(oid))) return true
    const bytes = await step(() => sequencer.fill(oid, STEP_BLOCKS)).catch(unfilled)
    if (typeof bytes === 'string') return bytes === 'gone'
    if (bytes === null) return sequencer.isComplete(oid)
  }
  return false
}

/** Why an object cannot be filled now: it was removed, or there is no space, or what is missing is rotten everywhere. */
function unfilled(error: unknown): 'gone' | 'not now' {
  if (!(error instanceof StoreError)) throw error
  if (error.code === 'NoObject') return 'gone'
  if (error.code === 'NoSpace' || error.code === 'CorruptBlock') return 'not now'
  throw error
}
