import { formatOid, oidIndex, oidKind, oidVid } from '../../protocol/oid.ts'
import { attributeOid } from '../attributes.ts'
import type { BlockMap } from '../block-map.ts'
import type { ClusterState, Vdi } from '../cluster-state.ts'
import { BLOCK_BYTES, BLOCKS_PER_OBJECT, OBJECT_BYTES } from '../object-format.ts'
import type { ObjectStore } from '../object-store.ts'
import type { StoredObject } from '../stored-object.ts'

export interface AuditReport {
  sound: boolean
  /** Objects in the store, maps included. */
  objects: number
  vdis: number
  snapshots: number
  exports: number
  /** Deleted VDIs of which something is left, because others of their family still want it. */
  deleting: number
  blocksChecked: number
  problems: Problem[]
}

export interface Problem {
  kind: 'missing_object' | 'orphan_object' | 'corrupt_block'
  detail: string
}

const PROBLEMS_MAX = 100

/**
 * Reads everything and proves that it fits together: each block matches its checksum; each map entry and each inherited
 * block names an object that is there; each object belongs to a known VDI and, unless that is being deleted, is named
 * by its map.
 */
export async function auditStore(
  store: ObjectStore,
  state: ClusterState,
  mapOf: (vdi: Vdi) => BlockMap,
  progress: (done: number, total: number) => void = () => {},
): Promise<AuditReport> {
  const problems: Problem[] = []
  const report = (kind: Problem['kind'], detail: string) => {
    if (problems.length < PROBLEMS_MAX) problems.push({ kind, detail })
  }
  const named = new Set<bigint>()
  for (const vdi of [...state.vdis.values()]) {
    if (vdi.deleting) continue
    for await (const { index, vid } of mapOf(vdi).entries(Math.ceil(vdi.sizeBytes / OBJECT_BYTES))) {
      const oid = (BigInt(vid) << 32n) | BigInt(index)
      named.add(oid)
      if (!store.exists(oid))
        report(
          'missing_object',
          `${vdi.name} (${vdi.vid.toString(16)}): index ${index} names ${formatOid(oid)}, which is missing`,
        )
    }
  }
  for (const { vid, attribute } of state.attributes.all()) {
    if (!store.exists(attributeOid(attribute)))
      report('missing_object', `attribute ${attribute.key} of ${vid.toString(16)}: ${attribute.oid} is missing`)
  }
  let blocksChecked = 0
  let done = 0
  const oids = [...store.oids()]
  for (const oid of oids) {
    progress(done++, oids.length)
    if (!store.exists(oid)) continue // dropped while the audit ran
    const kind = oidKind(oid)
    const owner = ownerOf(state, oid)
    if (!owner) report('orphan_object', `object ${formatOid(oid)} belongs to no VDI`)
    else if (kind === 'data' && !owner.deleting && !named.has(oid) && oidIndex(oid) * OBJECT_BYTES < owner.sizeBytes) {
      // A write since the maps were read makes an object that they do not name: ask again.
      const map = mapOf(owner)
      await map.load(oidIndex(oid))
      if (map.lookupNow(oidIndex(oid)) !== owner.vid && store.exists(oid))
        report('orphan_object', `object ${formatOid(oid)} is named by no map`)
    }
    try {
      const inherited = named.has(oid) || !owner?.deleting
      blocksChecked += await store.using(oid, (object) => checkBlocks(store, object, inherited, report))
    } catch (error) {
      if (store.exists(oid)) report('corrupt_block', error instanceof Error ? error.message : String(error))
    }
  }
  const vdis = [...state.vdis.values()]
  return {
    sound: problems.length === 0,
    objects: oids.length,
    vdis: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt === 0).length,
    snapshots: vdis.filter((vdi) => !vdi.deleting && vdi.snapshotAt > 0).length,
    exports: state.exports.size,
    deleting: vdis.filter((vdi) => vdi.deleting).length,
    blocksChecked,
    problems,
  }
}

/** The VDI that an object belongs to; undefined for one that nothing accounts for. */
function ownerOf(state: ClusterState, oid: bigint): Vdi | undefined {
  const kind = oidKind(oid)
  if (kind === 'attr') return state.vdis.get(state.attributes.byOid(oid)?.vid ?? 0)
  const owner = state.vdis.get(oidVid(oid))
  if (kind === 'vmstate') return oidIndex(oid) < (owner?.vmstateObjects ?? 0) ? owner : undefined
  return kind === 'data' || kind === 'inode' ? owner : undefined
}

/**
 * An object of a deleted VDI that no map names is kept for the blocks of its own that others inherit; what it inherits itself
 * may be gone.
 */
async function checkBlocks(
  store: ObjectStore,
  object: StoredObject,
  inherited: boolean,
  report: (kind: Problem['kind'], detail: string) => void,
): Promise<number> {
  const target = Buffer.allocUnsafe(BLOCK_BYTES)
  let checked = 0
  for (let block = 0; block < BLOCKS_PER_OBJECT; block++) {
    const state = store.blockState(object, block)
    if (state?.state === 'zero' || (state?.state === 'inherit' && !inherited)) continue
    checked++
    const problem = await new Promise<string | null>((resolve) => {
      store.read(object, block, 1, target, (error) => resolve(error?.message ?? null))
    })
    if (problem && store.exists(object.oid)) report('corrupt_block', problem)
  }
  return checked
}
