import { ServiceError, StoreError, type StoreErrorCode } from '../../errors.ts'
import type { Random } from '../../runtime/random.ts'
import type { VdiClient } from '../../vdi/client.ts'
import { hashExportName } from '../../vdi/export-name.ts'
import type {
  AttachmentRef,
  ConnectionInfo,
  NewVolume,
  PoolStats,
  SnapshotRef,
  VolumeCopies,
  VolumeData,
  VolumeDriver,
  VolumeLimits,
  VolumeRef,
} from '../driver.ts'
import { discover } from './discover.ts'
import { listManageable, manageSnapshot, manageVolume } from './manage.ts'
import { cloneTag, isCloneTag, snapshotTag, vdiName } from './names.ts'
import { createVdiData } from './vdi-data.ts'

const GIB = 1024 ** 3
const EXPORT_NAME_BYTES = 24

export interface SheepdogDriverOptions {
  vdis: VdiClient
  random: Random
  pool: SheepdogPool
  /** Host and port of the store's NBD gateway, as initiators reach it; `nbds` when it wants TLS. */
  gateway(): Promise<{ scheme: 'nbd' | 'nbds'; host: string; port: number }>
  /** Waits until this host's gateway serves nothing under the attachment's right any more. */
  drained(attachmentId: string): Promise<void>
}

/** What the operator says of the one pool of a store. */
export interface SheepdogPool {
  name: string
  reservedPercentage: number
  maxOverSubscriptionRatio: number
  /** False has the scheduler promise no more than the capacity. Volumes are thin all the same. */
  thin: boolean
}

/** A pool of that name, as thin as it gets. */
export function sheepdogPool(name: string): SheepdogPool {
  return { name, reservedPercentage: 0, maxOverSubscriptionRatio: 20, thin: true }
}

/**
 * Volumes as VDIs of a Sheepdog store: the only place that speaks both languages.
 *
 *   volume          working VDI `volume-<id>`
 *   snapshot        snapshot of that VDI with the tag `snapshot-<id>`
 *   attachment      export right in the store, under a name that only its connection information tells
 *
 * Everything is found by name, so that any call may be repeated by any process.
 */
export function createSheepdogDriver(options: SheepdogDriverOptions): VolumeDriver {
  const { vdis, random, pool, gateway, drained } = options

  /** The snapshot's vid. Throws SnapshotNotFound. */
  async function findSnapshot({ id, volumeId }: SnapshotRef): Promise<number> {
    return found(vdis.lookup(vdiName(volumeId), snapshotTag(id)), () => {
      throw new ServiceError('SnapshotNotFound', { snapshot_id: id })
    })
  }

  async function findVolume(id: string): Promise<number> {
    return found(vdis.lookup(vdiName(id)), () => {
      throw new ServiceError('VolumeNotFound', { volume_id: id })
    })
  }

  /**
   * Runs something on the working VDI of a volume. A snapshot that is taken meanwhile lets it go on under another vid, and the
   * one that was looked up is read-only then: it has to be looked up again.
   */
  async function onWorkingVdi<T>(volumeId: string, run: (vid: number) => Promise<T>): Promise<T> {
    for (let vid = await findVolume(volumeId); ; ) {
      try {
        return await run(vid)
      } catch (error) {
        if (!isCode(error, 'ReadOnly')) throw error
        const before = vid
        vid = await findVolume(volumeId)
        if (vid === before) throw error
      }
    }
  }

  /** Creates the VDI of a volume, unless an earlier call has. */
  async function createVdi(volume: NewVolume, baseVid: number): Promise<void> {
    const { id, sizeGib, copies } = volume
    await unless('VdiExists', vdis.create(vdiName(id), sizeGib * GIB, baseVid, copies ?? {}))
  }

  return {
    capabilities: { storageProtocol: 'nbd', thinProvisioning: pool.thin, multiattach: true, extendInUse: true },
    start: async () => {
      await translate(vdis.space())
    },
    stop: async () => vdis.close(),
    drive: (databaseId, options) => translate(vdis.drive(databaseId, options)),
    discover: () => translate(discover(vdis)),
    stats: () => translate(poolStats(vdis, pool)),

    createVolume: (volume) => translate(createVdi(volume, 0)),
    createVolumeFromSnapshot: (volume, snapshot) =>
      translate(findSnapshot(snapshot).then((baseVid) => createVdi(volume, baseVid))),
    createClonedVolume: (volume, source) => translate(cloneVolume(volume, source)),
    deleteVolume: (volume) => translate(deleteVolume(volume)),
    extendVolume: (volume, newSizeGib) =>
      translate(onWorkingVdi(volume.id, (vid) => vdis.resize(vid, newSizeGib * GIB))),
    alterCopies: (volume, copies) => translate(alterCopies(volume, copies)),

    createSnapshot: (snapshot) => translate(createSnapshot(snapshot)),
    createGroupSnapshot: (snapshots) => translate(createGroupSnapshot(snapshots)),
    deleteSnapshot: (snapshot) =>
      translate(unlessMissing(vdis.remove(vdiName(snapshot.volumeId), snapshotTag(snapshot.id)))),
    revertToSnapshot: (snapshot) => translate(revertToSnapshot(snapshot)),

    createExport: (volume, attachment) => translate(createExport(volume, attachment)),
    removeExport: (_volume, attachmentId) =>
      translate(vdis.removeExport(attachmentId).then(() => drained(attachmentId))),
    limitVolume: (volume, limits) => translate(limitVolume(volume, limits)),

    listManageable: () => translate(listManageable(vdis)),
    manageVolume: (volume, name) => translate(manageVolume(vdis, volume.id, name)),
    manageSnapshot: (snapshot, name) => translate(manageSnapshot(vdis, snapshot, name)),

    openVolume: (volume) => translate(onWorkingVdi(volume.id, (vid) => openData(vid, false))),
    openSnapshot: (snapshot) => translate(findSnapshot(snapshot).then((vid) => openData(vid, true))),
  }

  async function openData(vid: number, readOnly: boolean): Promise<VolumeData> {
    return createVdiData(await vdis.open(vid, { readOnly }), translate)
  }

  async function cloneVolume(volume: NewVolume, source: VolumeRef): Promise<void> {
    const [sourceName, tag] = [vdiName(source.id), cloneTag(volume.id)]
    const exists = await found(vdis.lookup(vdiName(volume.id)), () => 0)
    if (exists === 0) {
      await unless(
        'VdiExists',
        onWorkingVdi(source.id, (vid) => vdis.snapshot(vid, tag)),
      )
      await createVdi(volume, await vdis.lookup(sourceName, tag))
    }
    await unlessMissing(vdis.remove(sourceName, tag)) // the clone keeps what it shares
  }

  async function deleteVolume({ id }: VolumeRef): Promise<void> {
    const snapshots = (await vdis.listOf(vdiName(id))).filter((vdi) => vdi.snapshotAt > 0)
    for (const { tag } of snapshots) {
      if (!isCloneTag(tag)) throw new ServiceError('InvalidVolume', { reason: `Volume ${id} has snapshots.` })
      await unlessMissing(vdis.remove(vdiName(id), tag)) // left by a clone that was given up
    }
    await unlessMissing(removeLeftExports(id).then(() => vdis.remove(vdiName(id))))
  }

  /** Nobody deletes a volume that is attached: rights that are left are of calls that were given up and ended later. */
  async function removeLeftExports(id: string): Promise<void> {
    for (const { attachmentId } of await vdis.exportsOf(vdiName(id))) {
      await vdis.removeExport(attachmentId)
      await drained(attachmentId)
    }
  }

  async function limitVolume({ id }: VolumeRef, limits: VolumeLimits | null): Promise<void> {
    for (const { attachmentId } of await vdis.exportsOf(vdiName(id))) {
      await unless('NoExport', vdis.limitExport(attachmentId, limits)) // taken back meanwhile
    }
  }

  async function alterCopies({ id }: VolumeRef, wanted: VolumeCopies | null): Promise<void> {
    const own = await vdis.space()
    const { copies, copiesMin = Math.min(own.copiesMin, copies) } = wanted ?? own
    try {
      await onWorkingVdi(id, (vid) => vdis.alter(vid, { copies, copiesMin }))
    } catch (error) {
      if (!isCode(error, 'Unsupported')) throw error
      const reason = `the store has one node, and no room for ${copies} copies of a volume`
      throw new ServiceError('BackendFailure', { reason }, { cause: error })
    }
  }

  async function createSnapshot(snapshot: SnapshotRef): Promise<void> {
    const { id, volumeId } = snapshot
    await unless(
      'VdiExists',
      onWorkingVdi(volumeId, (vid) => vdis.snapshot(vid, snapshotTag(id))),
    )
  }

  async function createGroupSnapshot(snapshots: readonly SnapshotRef[]): Promise<void> {
    const together = snapshots.map(({ id, volumeId }) => ({ name: vdiName(volumeId), tag: snapshotTag(id) }))
    await unless('VdiExists', vdis.snapshotTogether(together))
    for (const snapshot of snapshots) await findSnapshot(snapshot) // all are of one call, unless somebody else has made one
  }

  async function revertToSnapshot(snapshot: SnapshotRef): Promise<void> {
    await findVolume(snapshot.volumeId)
    await findSnapshot(snapshot)
    await vdis.rollback(vdiName(snapshot.volumeId), { tag: snapshotTag(snapshot.id) })
  }

  async function createExport(volume: VolumeRef, { id, mode, limits }: AttachmentRef): Promise<ConnectionInfo> {
    const name = random.bytes(EXPORT_NAME_BYTES).toString('hex')
    const address = gateway()
    const [{ scheme, host, port }] = await Promise.all([
      address,
      onWorkingVdi(volume.id, async (vid) => {
        await address // no right that nobody could use
        const right = { attachmentId: id, nameHash: hashExportName(name), vid, readOnly: mode === 'ro' }
        await vdis.putExport(limits ? { ...right, limits } : right)
      }),
    ])
    await drained(id) // connections under a name that an earlier call gave out
    return {
      driver_volume_type: 'nbd',
      uri: `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}/${name}`,
      name,
      hosts: [host],
      ports: [String(port)],
      access_mode: mode,
      volume_id: volume.id,
      discard: true,
      logical_block_size: '512', // text, as Nova puts them into a document without a look
      physical_block_size: '4096',
    }
  }
}

async function poolStats(vdis: VdiClient, pool: SheepdogPool): Promise<PoolStats[]> {
  const space = await vdis.space()
  return [
    {
      poolName: pool.name,
      totalCapacityGib: space.totalBytes / GIB,
      freeCapacityGib: space.freeBytes / GIB,
      provisionedCapacityGib: space.provisionedBytes / GIB,
      sizeFactors: space.sizeFactors,
      reservedPercentage: pool.reservedPercentage,
      maxOverSubscriptionRatio: pool.maxOverSubscriptionRatio,
    },
  ]
}

/** A failure of the store in the service's words; what is one already passes. */
async function translate<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (!(error instanceof StoreError)) throw error
    if (IN_USE.has(error.code)) throw new ServiceError('InvalidVolume', { reason: error.message }, { cause: error })
    const code = AWAY.has(error.code) ? 'ServiceUnavailable' : 'BackendFailure'
    throw new ServiceError(code, { reason: error.message }, { cause: error })
  }
}

/** Exported, open, or locked by QEMU or tgt. */
const IN_USE: ReadonlySet<StoreErrorCode> = new Set<StoreErrorCode>(['VdiInUse', 'VdiLocked'])

/** The store cannot be reached, or is on its way down: it may be back soon. */
const AWAY: ReadonlySet<StoreErrorCode> = new Set<StoreErrorCode>(['Disconnected', 'Stopping'])

const isCode = (error: unknown, code: StoreErrorCode) => error instanceof StoreError && error.code === code
const isMissing = (error: unknown) => isCode(error, 'NoVdi') || isCode(error, 'NoTag')

async function found(lookup: Promise<number>, otherwise: () => number): Promise<number> {
  try {
    return await lookup
  } catch (error) {
    if (isMissing(error)) return otherwise()
    throw error
  }
}

async function unlessMissing(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!isMissing(error)) throw error
  }
}

async function unless(code: StoreErrorCode, work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!isCode(error, code)) throw error
  }
}
