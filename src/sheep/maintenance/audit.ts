import { StoreError } from '../../errors.ts'
import { formatOid, oidIndex, oidKind, oidVid, withVid } from '../../protocol/oid.ts'
import { type Account, blocksIn, isNamedIn } from '../accounts.ts'
import { attributeOid } from '../attributes.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, Vdi } from '../entries.ts'
import { BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { Change, ObjectStore } from '../object-store.ts'
import type { VdiMap } from '../owner-contract.ts'
import type { StoredObject } from '../stored-object.ts'
import { recountFamily, sameBlocks } from './recount.ts'
import { blockRuns, type Damage, damageOf, lookup, verifyBlocks } from './verify.ts'

export interface AuditReport {
  /** No problem is left, or all were repaired. */
  sound: boolean
  /** Objects in the store, maps included. */
  objects: number
  vdis: number
  snapshots: number
  exports: number
  /** Deleted VDIs of which something is left, because others of their family still want it. */
  deleting: number
  blocksChecked: number
  /** Accounts that were counted again. */
  accounts: number
  /** Parts of objects that were written each time when their copies were to be compared. */
  busy?: number
  problems: Problem[]
  /** More than `problems` has room for. */
  problemsTotal: number
}

export interface Problem {
  kind:
    | 'missing_object'
    | 'missing_copy'
    | 'different_copies'
    | 'orphan_object'
    | 'corrupt_block'
    | 'dangling_block'
    | 'wrong_account'
    | 'dangling_export'
  detail: string
  /** Where a user sees the damage, if one can. */
  where: Damage | null
  isRepaired: boolean
}

export interface AuditProgress {
  phase: 'references' | 'blocks'
  done: number
  total: number
}

export interface AuditOptions {
  store: ObjectStore
  state: ClusterState
  /** The map of a VDI as its owner has it, so that nothing changes it unseen. */
  ownedMapOf(vid: number): VdiMap
  propose(entry: Entry): Promise<void>
  /** Lets other work run; awaited now and then. */
  pause(): Promise<void>
  repair: boolean
  progress?(progress: AuditProgress): void
}

const PROBLEMS_MAX = 100

/**
 * Proves that everything fits together, beside whatever else is done with the store:
 *
 * 1. references: each map entry and each inherited block names what is there; each object belongs to a known VDI and,
 *    unless that was deleted, is named by its map; each export right is one to a VDI;
 * 2. accounts: each says what maps and tables say;
 * 3. checksums: each block of each object matches.
 *
 * Whatever looks wrong is looked at again before it counts, because the store does not stand still. Damage that no VDI
 * can see, in what a deleted one has left, is none. With `repair`, accounts are set right, orphans and rights to nothing
 * removed. A block that has rotten has no second copy: it is reported with the range of each VDI that holds it.
 */
export function auditStore(options: AuditOptions): Promise<AuditReport> {
  return new Audit(options).run()
}

class Audit {
  readonly #options: AuditOptions
  readonly #problems: Problem[] = []
  #problemsTotal = 0
  #unrepaired = 0
  readonly #repairs: Promise<void>[] = []
  #accounts = 0
  #blocksChecked = 0
  /** Objects that the map of a VDI names that has not been deleted. */
  readonly #named = new Set<bigint>()

  constructor(options: AuditOptions) {
    this.#options = options
  }

  async run(): Promise<AuditReport> {
    const { store, state, progress } = this.#options
    const families = [...state.vdis.families()]
    for (const [done, family] of families.entries()) {
      progress?.({ phase: 'references', done, total: families.length })
      await this.#checkFamily(family)
    }
    await this.#checkExports()
    for (const { vid, attribute } of [...state.attributes.all()]) {
      if (store.exists(attributeOid(attribute))) continue
      this.#report('missing_object', `attribute ${attribute.key} of ${vid.toString(16)}: ${attribute.oid} is missing`)
    }
    const oids = [...store.oids()]
    for (const [done, oid] of oids.entries()) {
      progress?.({ phase: 'blocks', done, total: oids.length })
      await this.#options.pause()
      if (store.exists(oid) && !(await this.#checkOrphan(oid))) await this.#checkBlocks(oid)
    }
    await Promise.all(this.#repairs)
    const vdis = [...state.vdis.values()]
    return {
      sound: this.#unrepaired === 0,
      objects: [...oids].filter((oid) => store.exists(oid)).length,
      vdis: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt === 0).length,
      snapshots: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt > 0).length,
      exports: state.exports.size,
      deleting: vdis.filter((vdi) => vdi.deleting).length,
      blocksChecked: this.#blocksChecked,
      accounts: this.#accounts,
      problems: this.#problems,
      problemsTotal: this.#problemsTotal,
    }
  }

  #report(kind: Problem['kind'], detail: string, where: Damage | null = null, isRepaired = false): void {
    this.#problemsTotal++
    if (!isRepaired) this.#unrepaired++
    if (this.#problems.length < PROBLEMS_MAX) this.#problems.push({ kind, detail, where, isRepaired })
  }

  /** In the turn of the caller; the report waits until it is durable. */
  #commit(change: Change): void {
    const repair = new Promise<void>((resolve, reject) => {
      this.#options.store.commit([change], { durable: true }, (error) => (error ? reject(error) : resolve()))
    })
    repair.catch(() => {}) // whoever awaits all of them is told
    this.#repairs.push(repair)
  }

  async #checkFamily(family: number): Promise<void> {
    const { store, state, pause } = this.#options
    const missing: { vdi: Vdi; index: number; oid: bigint }[] = []
    // A map that cannot be read counts too little; what is damaged is found by the blocks.
    let isReadable = true
    await recountFamily(
      family,
      {
        store,
        state,
        pause,
        onReference: (vdi, index, oid, exists) => {
          if (exists) this.#named.add(oid)
          else missing.push({ vdi, index, oid })
        },
        onUnreadable: () => {
          isReadable = false
        },
      },
      (counts) => {
        if (isReadable) this.#checkAccounts(counts)
      },
    )
    for (const { vdi, index, oid } of missing) {
      const current = state.vdis.get(vdi.vid)
      if (!current || current.deleting || store.exists(oid)) continue
      if ((await lookup(store, vdi.vid, index)) !== oidVid(oid)) continue
      this.#report('missing_object', `${formatOid(oid)} is missing`, {
        ...nameOf(vdi),
        offsetBytes: index * OBJECT_BYTES,
        lengthBytes: Math.min(OBJECT_BYTES, vdi.sizeBytes - index * OBJECT_BYTES),
      })
    }
  }

  /** Runs in one turn, in which the counts are exact. */
  #checkAccounts(counts: ReadonlyMap<number, Account>): void {
    const { store, state, repair } = this.#options
    for (const [vid, counted] of counts) {
      const vdi = state.vdis.get(vid)
      if (!vdi) continue
      this.#accounts++
      const account = store.accounts.of(vid)
      if (sameBlocks(counted, account)) continue
      // Nobody wants what this one left, and it goes bit by bit; the account says so in the end.
      if (vdi.deleting && isLessThan(counted, account) && !isWanted(store, state, vdi)) continue
      if (repair) this.#commit({ kind: 'accountSet', vid, account: counted })
      const { vdi: name, snapshot } = nameOf(vdi)
      const said = `${blocksIn(account)} blocks, ${blocksIn(counted)} were counted`
      this.#report('wrong_account', `${name}${snapshot && `@${snapshot}`}: the account says ${said}`, null, repair)
    }
  }

  async #checkExports(): Promise<void> {
    const { state, repair, propose } = this.#options
    for (const { attachmentId, vid } of [...state.exports.values()]) {
      if (state.vdis.get(vid)?.deleting === false) continue
      if (repair) await propose({ type: 'unexport', attachmentId })
      const detail = `attachment ${attachmentId} has a right to vid ${vid.toString(16)}, which is no VDI`
      this.#report('dangling_export', detail, null, repair)
    }
  }

  /** Whether the object belongs to nobody. */
  async #checkOrphan(oid: bigint): Promise<boolean> {
    const { store, state, repair } = this.#options
    const owner = ownerOf(state, oid)
    if (owner && (owner.deleting || this.#named.has(oid) || oidKind(oid) !== 'data')) return false
    const why = owner ? 'is named by no map' : 'belongs to no VDI'
    if (owner) {
      // A write since the maps were read makes an object that was not named then: ask who must know.
      const map = this.#options.ownedMapOf(owner.vid)
      if (!(await isLoaded(map, oidIndex(oid)))) return false // the page itself is damaged, and reported
      if (map.lookupNow(oidIndex(oid)) === owner.vid || !store.exists(oid)) return false
    }
    // From here to the commit in one turn: the map cannot change meanwhile.
    if (repair) this.#commit({ kind: 'remove', oid })
    this.#report('orphan_object', `${formatOid(oid)} ${why}`, null, repair)
    return true
  }

  async #checkBlocks(oid: bigint): Promise<void> {
    const { store, state, pause } = this.#options
    const { checked, bad, unreadable } = await verifyBlocks(store, oid, pause)
    this.#blocksChecked += checked
    if (unreadable) await this.#reportDamage(oid, null, unreadable)
    else if (bad.length > 0) await this.#reportDamage(oid, bad, null)
    if (unreadable || oidKind(oid) !== 'data') return
    if (state.vdis.get(oidVid(oid))?.deleting && !this.#named.has(oid)) return // what it inherits may be gone
    const dangling = await this.#dangling(oid)
    if (dangling.length > 0) await this.#reportDamage(oid, dangling, null, 'dangling_block')
  }

  /** Blocks that the object inherits from an object that is missing, or has no data there. */
  async #dangling(oid: bigint): Promise<number[]> {
    const { store } = this.#options
    const missing: number[] = []
    const check = (object: StoredObject, holderVid: number, holder: StoredObject | null) => {
      if (object.removed) return
      for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
        if (store.blockState(object, block)?.holderVid !== holderVid) continue
        if (!holder || holder.removed || store.blockState(holder, block)?.state !== 'data') missing.push(block)
      }
    }
    try {
      await store.using(oid, async (object) => {
        for (const holderVid of holdersOf(store, object)) {
          const holder = withVid(oid, holderVid)
          if (!store.exists(holder)) check(object, holderVid, null)
          else await store.using(holder, (found) => check(object, holderVid, found))
        }
      })
    } catch {
      return [] // the one that cannot be loaded is reported for itself
    }
    return missing.sort((a, b) => a - b)
  }

  /** Reports damaged blocks, or all of an object, once for each range of a VDI that shows it. */
  async #reportDamage(
    oid: bigint,
    blocks: readonly number[] | null,
    error: StoreError | null,
    kind: Problem['kind'] = 'corrupt_block',
  ): Promise<void> {
    const { store, state } = this.#options
    const isSeenAsObject = oidKind(oid) !== 'data' && oidKind(oid) !== 'inode' // machine state, an attribute
    if (isSeenAsObject) return this.#report(kind, error?.message ?? `object ${formatOid(oid)}`)
    const what = error?.message ?? `object ${formatOid(oid)}, ${describeRuns(blocks ?? [])}`
    for (const where of await damageOf(store, state, oid, blocks, kind === 'dangling_block')) {
      this.#report(kind, what, where)
    }
  }
}

async function isLoaded(map: VdiMap, index: number): Promise<boolean> {
  try {
    await map.load(index)
    return true
  } catch (error) {
    if (error instanceof StoreError && error.code === 'CorruptBlock') return false
    throw error
  }
}

function isLessThan(counted: Account, account: Account): boolean {
  return [...counted].every(([line, count]) => count <= (account.get(line) ?? 0))
}

/** The VDI that an object belongs to; undefined for one that nothing accounts for. */
function ownerOf(state: ClusterState, oid: bigint): Vdi | undefined {
  const kind = oidKind(oid)
  if (kind === 'attr') return state.vdis.get(state.attributes.byOid(oid)?.vid ?? 0)
  const owner = state.vdis.get(oidVid(oid))
  if (kind === 'vmstate') return oidIndex(oid) < (owner?.vmstateObjects ?? 0) ? owner : undefined
  return kind === 'data' || kind === 'inode' ? owner : undefined
}

/** Whether a VDI that has not been deleted sees blocks of a deleted one. */
function isWanted(store: ObjectStore, state: ClusterState, deleted: Vdi): boolean {
  return state.vdis
    .ofFamily(deleted.family)
    .some((vdi) => !vdi.deleting && isNamedIn(store.accounts.of(vdi.vid), deleted.vid))
}

function holdersOf(store: ObjectStore, object: StoredObject): Set<number> {
  const holders = new Set<number>()
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    const holderVid = store.blockState(object, block)?.holderVid
    if (holderVid) holders.add(holderVid)
  }
  return holders
}

const nameOf = (vdi: Vdi) => ({
  vdi: vdi.name,
  snapshot: vdi.snapshotAt > 0 ? vdi.tag || `#${vdi.snapId}` : '',
})

function describeRuns(blocks: readonly number[]): string {
  const runs = blockRuns(blocks).map(({ first, count }) => (count === 1 ? `${first}` : `${first}–${first + count - 1}`))
  return `${blocks.length === 1 ? 'block' : 'blocks'} ${runs.join(', ')}`
}
