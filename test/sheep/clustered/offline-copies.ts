import assert from 'node:assert'
import { createHash } from 'node:crypto'
import { formatOid } from '../../../src/protocol/oid.ts'
import type { BlockContents, BlockRange } from '../../../src/sheep/copies/copy-store.ts'
import { EngineCopyStore } from '../../../src/sheep/copies/engine-copy-store.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from '../../../src/sheep/object-format.ts'
import type { ObjectStore } from '../../../src/sheep/object-store.ts'

/** What each object of a node that does not run holds, in a form that can be compared. */
export async function copiesIn(store: ObjectStore, isRotten: (oid: bigint, block: number) => boolean) {
  const copies = new EngineCopyStore(store)
  const found = new Map<bigint, string>()
  for (const oid of copies.objects()) {
    const state = copies.stateOf(oid)!
    if (state.kind === 'removed') continue
    assert.equal(state.kind, 'full', `the copy of ${formatOid(oid)} is not whole`)
    found.set(oid, await describe(copies, oid, state.valid, (block) => isRotten(oid, block)))
  }
  return found
}

async function describe(
  copies: EngineCopyStore,
  oid: bigint,
  valid: readonly BlockRange[],
  isRotten: (block: number) => boolean,
): Promise<string> {
  const whole = { first: 0, count: BLOCKS_PER_OBJECT }
  const missing = BLOCKS_PER_OBJECT - valid.reduce((sum, { count }) => sum + count, 0)
  const contents = missing === 0 ? await read(copies, oid, whole) : null
  if (contents) return describeContents(contents)
  const blocks: string[] = []
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    const isThere = valid.some(({ first, count }) => first <= block && block < first + count)
    const each = isThere ? await read(copies, oid, { first: block, count: 1 }) : null
    assert(each || isRotten(block), `block ${block} of ${formatOid(oid)} cannot be read`)
    blocks.push(each ? describeContents(each) : '')
  }
  return blocks.join('\n')
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

/** One line for each kind that blocks are of; blocks with bytes of zeros and zeros are the same. */
function describeContents({ blocks, inherited }: BlockContents): string {
  const lines = blocks.flatMap(({ first, bytes }) =>
    Array.from({ length: bytes.length / BLOCK_BYTES }, (_, at) => {
      const block = bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)
      return block.some((byte) => byte !== 0) ? `${first + at} ${createHash('sha1').update(block).digest('hex')}` : ''
    }),
  )
  if (inherited) lines.push(`${formatOid(inherited.base)} ${JSON.stringify(inherited.ranges)}`)
  return lines.filter(Boolean).join('\n')
}
