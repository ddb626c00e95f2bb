import assert from 'node:assert'
import { createHash } from 'node:crypto'
import { formatOid } from '../../../src/protocol/oid.ts'
import { ALL_BLOCKS } from '../../../src/sheep/copies/block-ranges.ts'
import type { BlockContents } from '../../../src/sheep/copies/copy-store.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import type { ObjectStore } from '../../../src/sheep/object-store.ts'

const ZEROS = Buffer.alloc(BLOCK_BYTES)

/** What the blocks of each object of a node that does not run are, in a form that can be compared. All can be read. */
export async function copiesIn(store: ObjectStore): Promise<Map<bigint, readonly string[]>> {
  const copies = new EngineCopyStore(store)
  const found = new Map<bigint, readonly string[]>()
  for (const oid of copies.objects()) {
    const state = copies.stateOf(oid)!
    if (state.kind === 'removed') continue
    assert.equal(state.kind, 'full', `the copy of ${formatOid(oid)} is not whole`)
    assert.deepEqual(state.valid, ALL_BLOCKS, `the copy of ${formatOid(oid)} has rotten blocks`)
    found.set(oid, describeContents(await readAll(copies, oid)))
  }
  return found
}

function readAll(copies: EngineCopyStore, oid: bigint): Promise<BlockContents> {
  return new Promise((resolve, reject) =>
    copies.read(oid, ALL_BLOCKS[0]!, (error, contents) => (error ? reject(error) : resolve(contents))),
  )
}

/** Of all blocks of the object; those that nothing is said of, and blocks with bytes of zeros, are zeros. */
function describeContents({ blocks, inherited }: BlockContents): string[] {
  const words = Array.from({ length: BLOCKS_PER_OBJECT }, () => 'zeros')
  for (const { first, bytes } of blocks) {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const isZero = bytes.compare(ZEROS, 0, BLOCK_BYTES, at, at + BLOCK_BYTES) === 0
      if (isZero) continue
      const block = bytes.subarray(at, at + BLOCK_BYTES)
      words[first + at / BLOCK_BYTES] = createHash('sha1').update(block).digest('hex')
    }
  }
  for (const { first, count } of inherited?.ranges ?? [])
    words.fill(`inherited from ${formatOid(inherited!.base)}`, first, first + count)
  return words
}
