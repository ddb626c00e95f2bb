import assert from 'node:assert'
import type { StoreError } from '../../errors.ts'
import { oidVid, withVid } from '../../protocol/oid.ts'
import type { Change } from '../change.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'
import { type Blocks, subtract } from './block-ranges.ts'
import { rangesWhere } from './block-sets.ts'
import type { BlockContents, BlockRange, BlockRun, Inherited } from './copy-store.ts'

/** Contents of copies, and what they are in the object store of a node. */

/** What a range of a loaded object is made of. */
export function partsOf(
  store: ObjectStore,
  object: StoredObject,
  range: BlockRange,
): { data: Blocks; zeros: Blocks; inherited: Inherited | null } {
  const end = range.first + range.count
  const zeros = rangesWhere((block) => store.blockState(object, block)?.state === 'zero', range.first, end)
  const inherited = inheritedOf(store, object, range)
  return { data: subtract(subtract([range], zeros), inherited?.ranges ?? []), zeros, inherited }
}

function inheritedOf(store: ObjectStore, object: StoredObject, { first, count }: BlockRange): Inherited | null {
  let holder = 0
  const isInherited = (block: number) => {
    const found = store.blockState(object, block)
    if (found?.state !== 'inherit') return false
    holder = found.holderVid
    return true
  }
  const ranges = rangesWhere(isInherited, first, first + count)
  return ranges.length > 0 ? { base: withVid(object.oid, holder), ranges } : null
}

/** Fills all of these, and says which could not be read. */
export function readRuns(
  store: ObjectStore,
  object: StoredObject,
  runs: readonly BlockRun[],
  done: (failed: readonly { run: BlockRun; error: StoreError }[]) => void,
): void {
  const failed: { run: BlockRun; error: StoreError }[] = []
  let left = runs.length
  if (left === 0) return done(failed)
  for (const run of runs)
    store.read(object, run.first, run.bytes.length / BLOCK_BYTES, run.bytes, (error) => {
      if (error) failed.push({ run, error })
      if (--left === 0) done(failed)
    })
}

export function changesOf(oid: bigint, { blocks, zeros, inherited }: BlockContents): Change[] {
  const holderVid = inherited ? oidVid(inherited.base) : 0
  assert(!inherited || withVid(oid, holderVid) === inherited.base)
  return [
    ...(inherited?.ranges ?? []).map((range) => ({ kind: 'inherit' as const, object: oid, ...range, holderVid })),
    ...blocks.map(({ first, bytes }) => ({ kind: 'blocks' as const, object: oid, first, bytes })),
    ...zeros.map(({ first, count }) => ({ kind: 'zero' as const, object: oid, first, count })),
  ]
}

/** The parts of a run that `isWanted`. */
export function cutRun({ first, bytes }: BlockRun, isWanted: (block: number) => boolean): BlockRun[] {
  const end = first + bytes.length / BLOCK_BYTES
  assert(end <= BLOCKS_PER_OBJECT)
  return rangesWhere(isWanted, first, end).map((part) => {
    const at = (part.first - first) * BLOCK_BYTES
    return { first: part.first, bytes: bytes.subarray(at, at + part.count * BLOCK_BYTES) }
  })
}

export function eachBlock({ first, bytes }: BlockRun): BlockRun[] {
  return Array.from({ length: bytes.length / BLOCK_BYTES }, (_, at) => ({
    first: first + at,
    bytes: bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES),
  }))
}
