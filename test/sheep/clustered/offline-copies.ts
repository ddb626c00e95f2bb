import assert from 'node:assert'
import { createHash } from 'node:crypto'
import { formatOid } from '../../../src/protocol/oid.ts'
import type { BlockContents, BlockRange } from '../../../src/sheep/copies/copy-store.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import type { ObjectStore } from '../../../src/sheep/object-store.ts'

/** What the blocks of a copy are, in a form that can be compared; null for one that is rotten, as it is expected to be. */
export type BlocksOfCopy = readonly (string | null)[]

/** Each object of a node that does not run. */
export async function copiesIn(store: ObjectStore, isRotten: (oid: bigint, block: number) => boolean) {
  const copies = new EngineCopyStore(store)
  const found = new Map<bigint, BlocksOfCopy>()
  for (const oid of copies.objects()) {
    const state = copies.stateOf(oid)!
    if (state.kind === 'removed') continue
    assert.equal(state.kind, 'full', `the copy of ${formatOid(oid)} is not whole`)
    found.set(oid, await describe(copies, oid, state.valid, (block) => isRotten(oid, block)))
  }
  return found
}

/** The blocks in which two copies differ, but for rotten ones. */
export function differencesOf(a: BlocksOfCopy, b: BlocksOfCopy): string[] {
  return a.flatMap((ours, block) => {
    const theirs = b[block]!
    return ours === null || theirs === null || ours === theirs ? [] : `block ${block}: ${ours}, and ${theirs}`
  })
}

async function describe(
  copies: EngineCopyStore,
  oid: bigint,
  valid: readonly BlockRange[],
  isRotten: (block: number) => boolean,
): Promise<BlocksOfCopy> {
  const missing = BLOCKS_PER_OBJECT - valid.reduce((sum, { count }) => sum + count, 0)
  const contents = missing === 0 ? await read(copies, oid, { first: 0, count: BLOCKS_PER_OBJECT }) : null
  if (contents) return describeContents(contents)
  const blocks: (string | null)[] = []
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    const isThere = valid.some(({ first, count }) => first <= block && block < first + count)
    const each = isThere ? await read(copies, oid, { first: block, count: 1 }) : null
    assert(each || isRotten(block), `block ${block} of ${formatOid(oid)} cannot be read`)
    blocks.push(each && describeContents(each)[block]!)
  }
  return blocks
}

/** Null when a block does not match its checksum. */
function read(copies: EngineCopyStore, oid: bigint, range: BlockRange): Promise<BlockContents | null> {
  return new Promise((resolve, reject) =>
    copies.read(oid, range, (error, contents) => {
      if (!error) resolve(contents)
      else if (error.code === 'CorruptBlock') resolve(null)
      else reject(error)
    }),
  )
}

/** Of all blocks of the object; those that nothing is said of, and blocks with bytes of zeros, are zeros. */
function describeContents({ blocks, inherited }: BlockContents): string[] {
  const words = Array.from({ length: BLOCKS_PER_OBJECT }, () => 'zeros')
  for (const { first, bytes } of blocks) {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const block = bytes.subarray(at, at + BLOCK_BYTES)
      const hasBytes = block.some((byte) => byte !== 0)
      if (hasBytes) words[first + at / BLOCK_BYTES] = createHash('sha1').update(block).digest('hex')
    }
  }
  for (const { first, count } of inherited?.ranges ?? [])
    words.fill(`inherited from ${formatOid(inherited!.base)}`, first, first + count)
  return words
}
