import { StoreError } from '../../errors.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import type { CopySequencer } from './copy-sequencer.ts'
import type { Lack } from './lack.ts'

export interface CopyRecoveryOptions {
  /** What the block maps named a moment ago. */
  oids: readonly bigint[]
  sequencerOf(oid: bigint): CopySequencer
  /** Whether the block map names it still: copies of what it does not name are waited for in vain. */
  isNamed(oid: bigint): Promise<boolean>
  /** When it does not, the object is not home if it has not been looked at. */
  goesOn(oid: bigint): boolean
  /** Runs a look at some objects, when it is its turn. */
  look(look: () => Promise<Found[]>): Promise<Found[]>
  /** Runs a step of the copying, which says how many bytes it has copied, when it is its turn. */
  step(copy: () => Promise<number>): Promise<number>
  /** One of them is where it belongs. */
  done(): void
}

/** Blocks with bytes in a step of the copying: small enough that a client's request does not wait long behind it. */
const STEP_BLOCKS = 64
/** Objects in a step, as they are asked for together: small ones cost by their number. */
const STEP_OBJECTS = 16
/** Of all steps at once what comes back may come in one turn of the loop, and to look at an object takes a tenth of a millisecond. */
const LOOK_OBJECTS = 8
/** How many steps are waited for. How many of them are under way is up to who runs them. */
const STEPS_AT_ONCE = 32

/** What a look at an object has found. */
export type Found = 'home' | 'unknown' | Lack

/**
 * Brings objects to where they belong in the view in effect. Whether nothing of them was missing: it is when there is no space, or it is
 * rotten everywhere.
 *
 * All are looked at first: then what is missing has new targets that take what is written from then on, and how much there is to copy is
 * known. Several go at once, in whatever order: each object is by itself, and whatever is done to it goes by its sequencer, as for
 * clients.
 *
 * @throws StoreError of the sequencers: OldEpoch, Unsure. When nothing of it is under way any more.
 */
export async function bringHome(options: CopyRecoveryOptions): Promise<boolean> {
  const { oids, done } = options
  const lacking: { oid: bigint; bytes: number }[] = []
  let isHome = true
  await atOnce(
    packed(oids, LOOK_OBJECTS, () => 0),
    async (some) => {
      for (const [at, found] of (await lookAt(some, options)).entries()) {
        if (found === 'home') done()
        else if (found === 'unknown') isHome = false
        else lacking.push({ oid: some[at]!, bytes: found.bytes })
      }
    },
  )
  await atOnce(
    packed(lacking, STEP_OBJECTS, ({ bytes }) => bytes),
    async (some) => {
      if (!(await bringObjectsHome(some, options))) isHome = false
    },
  )
  return isHome
}

/** Parts of so many, and with so many bytes, that a step may have; one that has more is by itself. */
function packed<T>(all: readonly T[], countMax: number, bytesOf: (one: T) => number): T[][] {
  const packs: T[][] = []
  let room = 0
  for (const one of all) {
    const bytes = bytesOf(one)
    const last = packs.at(-1)
    if (last && last.length < countMax && bytes <= room) last.push(one)
    else {
      packs.push([one])
      room = STEP_BLOCKS * BLOCK_BYTES
    }
    room -= bytes
  }
  return packs
}

/** Runs `work` for all, some at once. Rejects when those that were begun have ended; none is begun after one has failed. */
async function atOnce<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  let next = 0
  let failure: { error: unknown } | null = null
  const worker = async () => {
    while (next < all.length && !failure) {
      try {
        await work(all[next++]!)
      } catch (error) {
        failure ??= { error }
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(STEPS_AT_ONCE, all.length) }, worker))
  if (failure) throw (failure as { error: unknown }).error
}

function lookAt(
  oids: readonly bigint[],
  { sequencerOf, isNamed, goesOn, look }: CopyRecoveryOptions,
): Promise<Found[]> {
  return look(() =>
    settledAll(oids, async (oid): Promise<Found> => {
      if (!goesOn(oid)) return 'unknown'
      if (!(await isNamed(oid))) return 'home'
      const lack = await sequencerOf(oid).lackOf(oid).catch(unfilled)
      if (lack === 'gone' || lack === null) return 'home'
      return lack === 'not now' ? { bytes: 0 } : lack
    }),
  )
}

/** Whether nothing of the objects is missing; of one that was removed meanwhile nothing is. */
async function bringObjectsHome(
  lacking: readonly { oid: bigint }[],
  { sequencerOf, isNamed, goesOn, step, done }: CopyRecoveryOptions,
): Promise<boolean> {
  let left = lacking
  let isHome = true
  while (left.length > 0) {
    const again: { oid: bigint }[] = []
    await step(async () => {
      const copied = await settledAll(left, async (one) => {
        const { oid } = one
        if (!goesOn(oid)) {
          isHome = false
          return 0
        }
        if (!(await isNamed(oid))) {
          done()
          return 0
        }
        const sequencer = sequencerOf(oid)
        const bytes = await sequencer.fill(oid, STEP_BLOCKS).catch(unfilled)
        if (bytes === 'gone' || sequencer.isComplete(oid)) done()
        else if (typeof bytes === 'number') again.push(one)
        else isHome = false
        return typeof bytes === 'number' ? bytes : 0
      })
      return copied.reduce((sum, bytes) => sum + bytes, 0)
    })
    left = again
  }
  return isHome
}

/** As Promise.all, but rejects when all have ended. */
async function settledAll<T, R>(all: readonly T[], work: (one: T) => Promise<R>): Promise<R[]> {
  const settled = await Promise.allSettled(all.map(work))
  return settled.map((one) => {
    if (one.status === 'rejected') throw one.reason
    return one.value
  })
}

/** Why an object cannot be filled now: it was removed, or there is no space, or what is missing is rotten everywhere. */
function unfilled(error: unknown): 'gone' | 'not now' {
  if (!(error instanceof StoreError)) throw error
  if (error.code === 'NoObject') return 'gone'
  if (error.code === 'NoSpace' || error.code === 'CorruptBlock') return 'not now'
  throw error
}
