import { dataOid, inodeOid } from '../../protocol/oid.ts'
import type { Log } from '../../runtime/log.ts'
import { type Account, objectsOf, ownOf } from '../accounts.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Vdi } from '../entries.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { AccountChange, ObjectStore } from '../object-store.ts'

const ENTRIES_PER_PAGE = BLOCK_BYTES / 4
/** Objects between two looks at what else there is to do. */
const OBJECTS_PER_TURN = 32

export interface RecountOptions {
  store: ObjectStore
  state: ClusterState
  /** Lets other work run; awaited now and then. */
  pause(): Promise<void>
  /** Told of each map entry of a VDI that has not been deleted; `exists` is false when the object it names is missing. */
  onReference?(vdi: Vdi, index: number, oid: bigint, exists: boolean): void
  /** Told of an object or a page of a map that cannot be read: what it should add is not counted. */
  onUnreadable?(vdi: Vdi, index: number, error: unknown): void
}

/**
 * Counts the accounts of a family from its maps and tables, while its VDIs are written to. It goes by index, all VDIs of the
 * family at once, so that each object is looked into once however many snapshots share it. What changes behind the place
 * that it has reached is added as it happens; what changes at that place makes it look there again; what changes
 * ahead will be seen. So the counts are exact in the turn in which `compare` is called. VDIs that come, or are deleted,
 * meanwhile are not in the result.
 */
export async function recountFamily(
  family: number,
  options: RecountOptions,
  compare: (counts: ReadonlyMap<number, Account>) => void,
): Promise<void> {
  const recount = new FamilyRecount(family, options)
  options.store.accountListeners.add(recount.listen)
  try {
    await recount.run()
    compare(recount.counts)
  } finally {
    options.store.accountListeners.delete(recount.listen)
  }
}

/** The accounts are lost or damaged: they are counted again from maps and tables, before anything changes those. */
export async function recountAccounts(
  options: Omit<RecountOptions, 'onReference' | 'onUnreadable'>,
  log: Log,
): Promise<void> {
  const { store, state } = options
  log.warn('the accounts are missing or damaged: counting them again')
  store.accounts.clear()
  const onUnreadable = (vdi: Vdi, index: number, error: unknown) =>
    log.error({ err: error, vid: vdi.vid.toString(16), index }, 'what cannot be read is not counted')
  for (const family of [...state.vdis.families()]) {
    await recountFamily(family, { ...options, onUnreadable }, (counts) => {
      // Each for itself: all accounts of a family with many snapshots may be more than the journal can hold at once.
      for (const [vid, account] of counts) {
        store.commit([{ kind: 'accountSet', vid, account }], { durable: false }, () => {})
      }
    })
  }
  await store.trustAccounts()
  log.info({ blocks: store.accounts.physicalBlocks }, 'the accounts are counted')
}

class FamilyRecount {
  readonly counts = new Map<number, Map<number, number>>()
  readonly #options: RecountOptions
  readonly #pages = new Map<number, Uint32Array>()
  /** The index that is being looked at: what is below it is counted. */
  #index = 0
  /** An account has changed at this index meanwhile. */
  #isStale = false
  #objects = 0

  constructor(family: number, options: RecountOptions) {
    this.#options = options
    for (const { vid } of options.state.vdis.ofFamily(family)) this.counts.set(vid, new Map())
  }

  readonly listen = (change: AccountChange): void => {
    const counts = this.counts.get(change.vid)
    if (!counts) return
    if (change.kind === 'accountSet') {
      this.counts.delete(change.vid) // deleted, or reclaimed: it means another thing now
      return
    }
    this.#pages.delete(change.vid)
    if (change.index < this.#index) addTo(counts, change.deltas)
    else if (change.index === this.#index) this.#isStale = true
  }

  async run(): Promise<void> {
    for (; this.#index * OBJECT_BYTES < this.#sizeBytes(); ) {
      if (this.#index % ENTRIES_PER_PAGE === 0) {
        this.#pages.clear()
        await this.#options.pause()
        await this.#loadPages()
      }
      const next = this.#nextIndex()
      if (next > this.#index) this.#index = next
      else await this.#countIndex()
    }
  }

  /** The first index from here on, of the same page of the map, that any VDI has an object for. */
  #nextIndex(): number {
    const end = (Math.floor(this.#index / ENTRIES_PER_PAGE) + 1) * ENTRIES_PER_PAGE
    for (let index = this.#index; index < end; index++) {
      for (const vid of this.counts.keys()) {
        const page = this.#pages.get(vid)
        if (page?.[index % ENTRIES_PER_PAGE] !== 0) return index
      }
    }
    return end
  }

  async #countIndex(): Promise<void> {
    const { store } = this.#options
    const index = this.#index
    for (;;) {
      this.#isStale = false
      const byOwner = new Map<number, Account>()
      const found = new Map<number, Account>()
      for (const vid of [...this.counts.keys()]) {
        const vdi = this.#options.state.vdis.get(vid)
        const owner = vdi ? await this.#ownerAt(vdi, index) : 0
        if (!vdi || owner === 0 || (vdi.deleting && owner !== vid)) continue
        if (!byOwner.has(owner)) byOwner.set(owner, await this.#look(vdi, owner, index))
        const blocks = byOwner.get(owner)!
        found.set(vid, vdi.deleting ? ownOf(vid, blocks) : blocks)
      }
      if (this.#isStale) continue
      for (const [vid, blocks] of found) {
        const counts = this.counts.get(vid)
        if (counts) addTo(counts, blocks)
        const vdi = this.#options.state.vdis.get(vid)
        const oid = dataOid(this.#pages.get(vid)?.[index % ENTRIES_PER_PAGE] ?? 0, index)
        if (vdi && !vdi.deleting) this.#options.onReference?.(vdi, index, oid, store.exists(oid))
      }
      this.#index++
      return
    }
  }

  /** Holders of the blocks of one object. */
  async #look(vdi: Vdi, owner: number, index: number): Promise<Account> {
    const { store, pause, onUnreadable } = this.#options
    const oid = dataOid(owner, index)
    const counts = new Map([[objectsOf(owner), 1]])
    if (++this.#objects % OBJECTS_PER_TURN === 0) await pause()
    if (!store.exists(oid)) return vdi.deleting ? new Map() : counts
    try {
      await store.using(oid, (object) => {
        for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
          const holder = store.holderOf(object, block)
          if (holder !== 0) counts.set(holder, (counts.get(holder) ?? 0) + 1)
        }
      })
    } catch (error) {
      if (store.exists(oid)) onUnreadable?.(vdi, index, error)
    }
    return counts
  }

  /** What the map says now. An entry whose object is missing is read again: a change that left the account alone may have replaced it. */
  async #ownerAt(vdi: Vdi, index: number): Promise<number> {
    const entry = async () => (await this.#page(vdi))[index % ENTRIES_PER_PAGE]!
    const owner = await entry()
    if (owner === 0 || vdi.deleting || this.#options.store.exists(dataOid(owner, index))) return owner
    this.#pages.delete(vdi.vid)
    return entry()
  }

  async #loadPages(): Promise<void> {
    for (const vid of [...this.counts.keys()]) {
      const vdi = this.#options.state.vdis.get(vid)
      if (vdi) await this.#page(vdi)
    }
  }

  async #page(vdi: Vdi): Promise<Uint32Array> {
    for (;;) {
      const cached = this.#pages.get(vdi.vid)
      if (cached) return cached
      const page = new Uint32Array(ENTRIES_PER_PAGE)
      this.#pages.set(vdi.vid, page) // a change while it is being read takes it away again
      await this.#readPage(vdi, page)
      if (this.#pages.get(vdi.vid) === page) return page
    }
  }

  async #readPage(vdi: Vdi, page: Uint32Array): Promise<void> {
    const { store, onUnreadable } = this.#options
    const oid = inodeOid(vdi.vid)
    if (!store.exists(oid)) return
    const number = Math.floor(this.#index / ENTRIES_PER_PAGE)
    const bytes = Buffer.alloc(BLOCK_BYTES)
    try {
      await store.using(oid, async (object) => {
        if (store.blockState(object, number)?.state !== 'zero') await store.readBlocks(object, number, bytes)
      })
      for (let i = 0; i < ENTRIES_PER_PAGE; i++) page[i] = bytes.readUInt32LE(i * 4)
    } catch (error) {
      if (store.exists(oid)) onUnreadable?.(vdi, this.#index, error)
    }
  }

  #sizeBytes(): number {
    let bytes = 0
    for (const vid of this.counts.keys()) {
      bytes = Math.max(bytes, this.#options.state.vdis.get(vid)?.sizeBytes ?? 0)
    }
    return bytes
  }
}

function addTo(counts: Map<number, number>, deltas: Account): void {
  for (const [holder, delta] of deltas) counts.set(holder, (counts.get(holder) ?? 0) + delta)
}

/** Whether two accounts say the same; what is not named is nothing. */
export function sameBlocks(a: Account, b: Account): boolean {
  for (const [holder, blocks] of a) if (blocks !== (b.get(holder) ?? 0)) return false
  for (const [holder, blocks] of b) if (blocks !== (a.get(holder) ?? 0)) return false
  return true
}
