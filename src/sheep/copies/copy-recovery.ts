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
  look(look: () => Promise<Looked>): Promise<unknown>
  /** Runs a step of the copying, which says how many bytes it has copied, when it is its turn. */
  step(copy: () => Promise<number>): Promise<number>
  /** So many more of them are where they belong. */
  done(objects: number): void
}

/** How many objects are known now, and how many bytes these lack. */
export interface Looked {
  objects: number
  bytes: number
}

/** Blocks with bytes in a step of the copying: small enough that a client's request does not wait long behind it. */
const STEP_BLOCKS = 64
/** Objects in a step, as they are asked for together: small ones cost by their number. */
const STEP_OBJECTS = 16
/** Of one VDI, asked for together: each node that may have copies is asked once for as many. */
const BULK_OBJECTS = 4096
const BULKS_AT_ONCE = 2
/** Of all steps at once what comes back may come in one turn of the loop, and to look at an object takes a tenth of a millisecond. */
const LOOK_OBJECTS = 8
/** How many steps are waited for. How many of them are under way is up to who runs them. */
const STEPS_AT_ONCE = 32

/** What a look at an object has found. */
type Found = 'home' | 'unknown' | Lack

/**
 * Brings objects to where they belong in the view in effect. Whether nothing of them was missing: it is when there is no space, or it is
 * rotten everywhere.
 *
 * All are looked at first: then what is missing has new targets that take what is written from then on, and how much there is to copy is
 * known. Most lack nothing in most views: so the first look is at thousands together, and only what it does not find to be home is looked at
 * by itself. Several go at once, in whatever order: each object is by itself, and whatever is done to it goes by its sequencer, as for
 * clients.
 *
 * @throws StoreError of the sequencers: OldEpoch, Unsure. When nothing of it is under way any more.
 */
export async function bringHome(options: CopyRecoveryOptions): Promise<boolean> {
  const { oids, sequencerOf, done } = options
  const unsure: bigint[] = []
  await atOnce(ofOneVdi(oids, sequencerOf), BULKS_AT_ONCE, async (some) => {
    for (const oid of await lookAtAll(some, options)) unsure.push(oid)
  })
  const lacking: { oid: bigint; bytes: number }[] = []
  let isHome = true
  const looks = packed(unsure, LOOK_OBJECTS, () => 0)
  await atOnce(looks, STEPS_AT_ONCE, async (some) => {
    for (const [at, found] of (await lookAt(some, options)).entries()) {
      if (found === 'home') done(1)
      else if (found === 'unknown') isHome = false
      else lacking.push({ oid: some[at]!, bytes: found.bytes })
    }
  })
  const steps = packed(lacking, STEP_OBJECTS, ({ bytes }) => bytes)
  await atOnce(steps, STEPS_AT_ONCE, async (some) => {
    if (!(await bringObjectsHome(some, options))) isHome = false
  })
  return isHome
}

/** Parts of objects that follow one another and are of one VDI. */
function ofOneVdi(oids: readonly bigint[], sequencerOf: CopyRecoveryOptions['sequencerOf']): bigint[][] {
  const parts: bigint[][] = []
  let before: CopySequencer | null = null
  for (const oid of oids) {
    const last = parts.at(-1)
    const sequencer = sequencerOf(oid)
    if (last && sequencer === before && last.length < BULK_OBJECTS) last.push(oid)
    else parts.push([oid])
    before = sequencer
  }
  return parts
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

/** Runs `work` for all, so many at once. Rejects when those that were begun have ended; none is begun after one has failed. */
async function atOnce<T>(all: readonly T[], most: number, work: (one: T) => Promise<void>): Promise<void> {
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
  await Promise.all(Array.from({ length: Math.min(most, all.length) }, worker))
  if (failure) throw (failure as { error: unknown }).error
}

/** Those of some objects of a VDI that may lack something. The others are home, whether they are named or not. */
async function lookAtAll(
  oids: readonly bigint[],
  { sequencerOf, goesOn, look, done }: CopyRecoveryOptions,
): Promise<readonly bigint[]> {
  let unsure = oids
  const first = oids[0]!
  await look(async () => {
    if (goesOn(first)) unsure = await sequencerOf(first).mayLack(oids)
    return { objects: oids.length - unsure.length, bytes: 0 }
  })
  done(oids.length - unsure.length)
  return unsure
}

async function lookAt(
  oids: readonly bigint[],
  { sequencerOf, isNamed, goesOn, look }: CopyRecoveryOptions,
): Promise<Found[]> {
  let found: Found[] = []
  await look(async () => {
    found = await settledAll(oids, async (oid): Promise<Found> => {
      if (!goesOn(oid)) return 'unknown'
      if (!(await isNamed(oid))) return 'home'
      const lack = await sequencerOf(oid).lackOf(oid).catch(unfilled)
      if (lack === 'gone' || lack === null) return 'home'
      return lack === 'not now' ? { bytes: 0 } : lack
    })
    const bytes = found.reduce((sum, one) => sum + (typeof one === 'string' ? 0 : one.bytes), 0)
    return { objects: found.length, bytes }
  })
  return found
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
          done(1)
          return 0
        }
        const sequencer = sequencerOf(oid)
        const bytes = await sequencer.fill(oid, STEP_BLOCKS).catch(unfilled)
        if (bytes === 'gone' || sequencer.isComplete(oid)) done(1)
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
