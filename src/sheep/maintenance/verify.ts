import { type StoreError, toStoreError } from '../../errors.ts'
import { dataOid, inodeOid, oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import type { ClusterState } from '../cluster-state.ts'
import { MemberFailed } from '../disks/member.ts'
import type { Vdi } from '../entries.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'

const ENTRIES_PER_PAGE = BLOCK_BYTES / 4
/** Blocks that are read at once. */
const BLOCKS_PER_READ = 64

/** A range of a VDI or snapshot that cannot be read, or reads wrong. */
export interface Damage {
  vdi: string
  /** Tag, or `#` and the number of a snapshot without one; empty for a working VDI. */
  snapshot: string
  offsetBytes: number
  lengthBytes: number
}

export interface Verified {
  /** Blocks that were read. */
  checked: number
  /** Those that do not match their checksum. */
  bad: number[]
  /** Why the object cannot be looked into at all. */
  unreadable: StoreError | null
}

/**
 * Reads what an object holds itself, not what it inherits, and holds it against its checksums. Runs beside everything else:
 * what a write or a checkpoint moves meanwhile is read again by the reader, and an object that goes meanwhile is no finding.
 * `pause` is told before each read how many bytes that takes.
 */
export async function verifyBlocks(
  store: ObjectStore,
  oid: bigint,
  pause: (bytes: number) => Promise<void>,
): Promise<Verified> {
  const verified: Verified = { checked: 0, bad: [], unreadable: null }
  try {
    await store.using(oid, async (object) => {
      for (let first = 0; first < BLOCKS_PER_OBJECT && !object.removed; ) {
        const count = runOfData(store, object, first)
        if (count > 0) {
          await pause(count * BLOCK_BYTES)
          verified.checked += count
          verified.bad.push(...(await badBlocks(store, object, first, count)))
        }
        first += Math.max(1, count)
      }
    })
  } catch (error) {
    if (store.exists(oid)) verified.unreadable = asCorrupt(error)
  }
  return store.exists(oid) ? verified : { checked: verified.checked, bad: [], unreadable: null }
}

/** How many blocks from `first` on hold data of the object's own, or an entry that states nothing; as many as are read at once. */
function runOfData(store: ObjectStore, object: StoredObject, first: number): number {
  let count = 0
  while (count < BLOCKS_PER_READ && first + count < BLOCKS_PER_OBJECT) {
    const found = store.blockState(object, first + count)
    if (found && found.state !== 'data') break
    count++
  }
  return count
}

async function badBlocks(store: ObjectStore, object: StoredObject, first: number, count: number): Promise<number[]> {
  if (await isGood(store, object, first, count)) return []
  const bad: number[] = []
  for (let block = first; block < first + count; block++) {
    if (!(await isGood(store, object, block, 1)) && !object.removed) bad.push(block)
  }
  return bad
}

async function isGood(store: ObjectStore, object: StoredObject, first: number, count: number): Promise<boolean> {
  try {
    await store.readBlocks(object, first, Buffer.allocUnsafe(count * BLOCK_BYTES))
    return true
  } catch (error) {
    asCorrupt(error)
    return false
  }
}

/** Passes on what is no damage of an object but a failure of the store. What a disk took with it that failed alone is damaged. */
export function asCorrupt(error: unknown): StoreError {
  const failure = toStoreError(error)
  if (failure.code === 'CorruptBlock' || failure.code === 'NoObject' || failure instanceof MemberFailed) return failure
  throw failure
}

/** What the map of a VDI says at an index, read from the store; 0 for nothing, and for a page that cannot be read. */
export async function lookup(store: ObjectStore, vid: number, index: number): Promise<number> {
  const oid = inodeOid(vid)
  if (!store.exists(oid)) return 0
  const page = Buffer.alloc(BLOCK_BYTES)
  try {
    await store.using(oid, (object) => store.readBlocks(object, Math.floor(index / ENTRIES_PER_PAGE), page))
  } catch (error) {
    asCorrupt(error)
    return 0
  }
  return page.readUInt32LE((index % ENTRIES_PER_PAGE) * 4)
}

/**
 * Where users see blocks of an object, or all of it (null): one range for each run in each VDI of the family. With `inherited`
 * the blocks are those that VDIs see through this object, otherwise those that lie in it.
 */
export async function damageOf(
  store: ObjectStore,
  state: ClusterState,
  oid: bigint,
  blocks: readonly number[] | null,
  inherited = false,
): Promise<Damage[]> {
  const family = state.vdis.get(oidVid(oid))?.family
  if (family === undefined) return []
  const damage: Damage[] = []
  for (const vdi of state.vdis.ofFamily(family)) {
    if (vdi.deleting) continue
    const seen = await seenBlocks(store, vdi, oid, blocks, inherited)
    const unitBytes = oidKind(oid) === 'inode' ? ENTRIES_PER_PAGE * OBJECT_BYTES : BLOCK_BYTES
    const startBytes = oidKind(oid) === 'inode' ? 0 : oidIndex(oid) * OBJECT_BYTES
    for (const { first, count } of blockRuns(seen)) {
      const offsetBytes = startBytes + first * unitBytes
      const lengthBytes = Math.min(count * unitBytes, vdi.sizeBytes - offsetBytes)
      const snapshot = vdi.snapshotAt > 0 ? vdi.tag || `#${vdi.snapId}` : ''
      if (lengthBytes > 0) damage.push({ vdi: vdi.name, snapshot, offsetBytes, lengthBytes })
    }
  }
  return damage
}

/** Those of the blocks of an object that a VDI sees. */
async function seenBlocks(
  store: ObjectStore,
  vdi: Vdi,
  oid: bigint,
  blocks: readonly number[] | null,
  inherited: boolean,
): Promise<readonly number[]> {
  const kind = oidKind(oid)
  const holderVid = oidVid(oid)
  const all = blocks ?? Array.from({ length: BLOCKS_PER_OBJECT }, (_, block) => block)
  let through: bigint
  if (kind === 'data') {
    const owner = await lookup(store, vdi.vid, oidIndex(oid))
    if (owner === 0) return []
    through = dataOid(owner, oidIndex(oid))
  } else if (kind === 'inode') {
    through = inodeOid(vdi.vid)
  } else {
    return vdi.vid === holderVid ? all : []
  }
  if (through === oid) return all
  if (inherited) return []
  try {
    return await store.using(through, (object) =>
      all.filter((block) => store.blockState(object, block)?.holderVid === holderVid),
    )
  } catch (error) {
    asCorrupt(error)
    return [] // damaged itself, and reported for itself
  }
}

export function blockRuns(blocks: readonly number[]): { first: number; count: number }[] {
  const runs: { first: number; count: number }[] = []
  for (const block of blocks) {
    const last = runs.at(-1)
    if (last && last.first + last.count === block) last.count++
    else runs.push({ first: block, count: 1 })
  }
  return runs
}
