import { dataOid } from '../protocol/oid.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT } from './object-format.ts'
import type { ObjectStore } from './object-store.ts'
import type { VdiMap } from './owner-contract.ts'

/** What stands behind one entry of a block map. */
export interface ListedObject {
  index: number
  oid: bigint
  /** Whose object it is: an ancestor's for what was not written since the snapshot. */
  vid: number
  /** What the object itself holds, and what it takes block by block from an ancestor's. */
  allocatedBytes: number
  inheritedBytes: number
  /** Addresses of the nodes that should have a copy, where there are several nodes. */
  nodes?: readonly string[]
}

/** Up to `count` objects of a VDI with an index from `from` on and below `limit`, in order. */
export async function listObjects(
  store: ObjectStore,
  map: VdiMap,
  { from, limit, count }: { from: number; limit: number; count: number },
): Promise<ListedObject[]> {
  const listed: ListedObject[] = []
  for await (const { index, vid } of map.entries(limit, from)) {
    if (listed.length === count) break
    const oid = dataOid(vid, index)
    // Dropped since the map was read, or missing, which an audit tells.
    if (!store.exists(oid)) continue
    let [data, inherited] = [0, 0]
    await store.using(oid, (object) => {
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        const state = store.blockState(object, block)?.state
        if (state === 'data') data++
        else if (state === 'inherit') inherited++
      }
    })
    listed.push({ index, oid, vid, allocatedBytes: data * BLOCK_BYTES, inheritedBytes: inherited * BLOCK_BYTES })
  }
  return listed
}
