import { type Blocks, overlaps } from './block-ranges.ts'
import type { BlockContents } from './copy-store.ts'
import type { Holders } from './holders.ts'
import type { CopyResults } from './messages.ts'
import type { OwnedObject } from './owned-object.ts'

/**
 * Blocks that are rotten in all copies that are up to date may lie with one that is not: it was away when the object was written
 * later, or lost power, and nobody knows any more which of its blocks are as they should be. A whole copy knows, by the checksums
 * that the rotten blocks do not match: so it is sent what the others are left with. This is the only thing that checksums decide.
 *
 * What is good then has left `object.rotten`.
 */
export function mend(object: OwnedObject, blocks: Blocks, holders: Holders): Promise<void> {
  const { term } = object
  const mended = object.mending.then(async () => {
    for (const { first, count } of blocks)
      for (let block = first; block < first + count && object.term === term; block++)
        await mendBlock(object, block, holders)
  })
  object.mending = mended
  return mended
}

async function mendBlock(object: OwnedObject, block: number, holders: Holders): Promise<void> {
  const { oid, term } = object
  const range = { first: block, count: 1 }
  for (const member of holders.possible(oid)) {
    if (object.term !== term || !overlaps(object.rotten, [range])) return
    const remains = await holders.ask(member, { type: 'remains', oid, range })
    if (remains?.refused !== null) continue
    const contents = remains.result as BlockContents
    if (contents.blocks.length === 0) continue
    for (const copy of object.acting.values()) {
      if (object.term !== term) return
      const answer = await holders.ask(copy.member, { type: 'mend', oid, contents })
      if (answer?.refused !== null || !(answer.result as CopyResults['mend']) || object.term !== term) continue
      object.mended(copy, [range])
      break
    }
  }
}
