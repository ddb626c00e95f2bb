import { dataOid, inodeOid, oidIndex, oidKind } from '../../protocol/oid.ts'
import { objectsOf } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import { FamilyTree } from '../maintenance/heirs.ts'
import { BLOCKS_PER_OBJECT } from '../object-format.ts'
import type { VdiMap } from '../owner-contract.ts'
import type { FamilyAccounts } from './family-accounts.ts'
import type { Grace } from './grace.ts'
import type { ObjectViews } from './object-view.ts'
import type { BlockRange, ReplicatedObjects } from './replicated-objects.ts'

export interface FamilyReclaimOptions {
  objects: ReplicatedObjects
  views: ObjectViews
  accounts: FamilyAccounts
  grace: Grace
  state: ClusterState
  family: number
  mapOf(vid: number): VdiMap & { lookup(index: number): Promise<number> }
}

/** Objects that are looked at, and then waited for, together. */
const OBJECTS_AT_ONCE = 64

/**
 * Gives back what deleted VDIs leave. Their objects are listed by the copies, so what no map ever named goes too.
 *
 * 1. Who can see an object of a deleted VDI was made from it. A living VDI of those sees at each index at least what those see that were
 *    made from it, so only the topmost ones are asked (FamilyTree).
 * 2. An object that nobody reads, or reads through, goes. Of one that is read, the blocks that nobody sees become zeros. So the
 *    space that is taken is that of blocks that somebody sees; and as chains are short, few objects are kept for what lies below them.
 * 3. While so many nodes are away that all copies of an object may be with them, nothing is done to its VDI: that nothing is left of it
 *    would have those who come back drop what is read.
 * 4. Nobody ever comes to see what he did not, so what is found unseen stays so. Whoever began to read before that may still be at it:
 *    he is waited for.
 */
export class FamilyReclaim {
  readonly #options: FamilyReclaimOptions

  constructor(options: FamilyReclaimOptions) {
    this.#options = options
  }

  /** Goes once through the deleted VDIs. Those of which nothing is left are gone; `isAll` when there is no more of any than was seen. */
  async round(): Promise<{ gone: number[]; isAll: boolean }> {
    const { state, family, objects } = this.#options
    const gone: number[] = []
    let isAll = true
    for (const vdi of state.vdis.ofFamily(family)) {
      if (!vdi.deleting) continue
      const { oids, areAll } = await objects.objectsOf(vdi.vid)
      if (!areAll) isAll = false
      else if (await this.#reclaim(vdi, oids)) gone.push(vdi.vid)
    }
    return { gone, isAll }
  }

  async #reclaim({ vid }: Vdi, oids: readonly bigint[]): Promise<boolean> {
    const { objects, accounts } = this.#options
    const heirs = this.#heirsOf(vid)
    const kept = { objects: 0, blocks: 0 }
    const data = oids.filter((oid) => oidKind(oid) === 'data')
    for (let first = 0; first < data.length; first += OBJECTS_AT_ONCE) {
      const some = data.slice(first, first + OBJECTS_AT_ONCE)
      const seen = await Promise.all(some.map((oid) => this.#seenOf(vid, oid, heirs)))
      await this.#options.grace.passed()
      const blocks = await Promise.all(some.map((oid, i) => this.#trim(oid, seen[i]!)))
      for (const count of blocks) {
        if (count === null) continue
        kept.objects++
        kept.blocks += count
      }
    }
    accounts.set(
      vid,
      new Map([
        [vid, kept.blocks],
        [objectsOf(vid), kept.objects],
      ]),
    )
    for (const oid of oids) if (oidKind(oid) === 'vmstate') await objects.remove(oid)
    if (kept.objects > 0) return false
    await objects.remove(inodeOid(vid))
    return true
  }

  /** The living VDIs made from a deleted one, without those that were made from another one of them. */
  #heirsOf(vid: number): Vdi[] {
    const { state, family } = this.#options
    const all = state.vdis.ofFamily(family)
    const made = new Set([vid])
    // A VDI is never older than its parent, but vids are in no order: go round until nothing is added.
    for (let size = 0; size < made.size; ) {
      size = made.size
      for (const vdi of all) if (made.has(vdi.parentVid)) made.add(vdi.vid)
    }
    made.delete(vid)
    const living = all.filter((vdi) => made.has(vdi.vid) && !vdi.deleting)
    return new FamilyTree(state).topmost(living, (other) => made.has(other))
  }

  /** Which blocks of an object of a deleted VDI its heirs see. */
  async #seenOf(vid: number, oid: bigint, heirs: readonly Vdi[]): Promise<Seen> {
    const { views, mapOf, grace } = this.#options
    const index = oidIndex(oid)
    const seen: Seen = { isNamed: false, isReadThrough: false, blocks: new Uint8Array(BLOCKS_PER_OBJECT) }
    for (const heir of heirs) {
      await grace.during(async () => {
        const head = await mapOf(heir.vid).lookup(index)
        if (head === 0) return
        const { view, release } = await views.hold(dataOid(head, index))
        const layer = view.chain.indexOf(vid) + 1
        if (layer === 1) seen.isNamed = true
        for (let block = 0; layer > 0 && block < BLOCKS_PER_OBJECT; block++) {
          if (view.layers[block]! > layer) seen.isReadThrough = true
          else if (view.layers[block] === layer) seen.blocks[block] = 1
        }
        release()
      })
    }
    return seen
  }

  /** Removes what nobody sees. Returns how many blocks of the object are left; null when it is gone. */
  async #trim(oid: bigint, seen: Seen): Promise<number | null> {
    const { objects, views } = this.#options
    if (!seen.isNamed && !seen.isReadThrough && !seen.blocks.includes(1)) {
      views.drop(oid)
      await objects.remove(oid)
      return null
    }
    const { data } = await objects.layoutOf(oid)
    const zeros: BlockRange[] = []
    let left = 0
    for (const { first, count } of data) {
      for (let block = first; block < first + count; block++) {
        const last = zeros.at(-1)
        if (seen.blocks[block] === 1) left++
        else if (last && last.first + last.count === block) last.count++
        else zeros.push({ first: block, count: 1 })
      }
    }
    if (zeros.length === 0) return left
    views.drop(oid)
    await objects.write(oid, { blocks: [], zeros }, { exists: true, durable: false })
    return left
  }
}

interface Seen {
  /** A map names it, or it is looked through for what lies below. */
  isNamed: boolean
  isReadThrough: boolean
  blocks: Uint8Array
}
