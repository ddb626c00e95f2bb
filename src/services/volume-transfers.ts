import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Db, isShared } from '../db/database.ts'
import * as encryptionKeys from '../db/encryption-keys.ts'
import * as snapshots from '../db/snapshots.ts'
import * as transfers from '../db/volume-transfers.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { Log } from '../runtime/log.ts'
import { moveVolume } from './accounting.ts'
import type { RequestContext } from './context.ts'
import { keyManagerError, type StoredKey } from './keys/key-manager.ts'
import { type OfferedKey, offerKey, openOffer } from './keys/offered-key.ts'
import { changedMeanwhile, removeOrLeave, withKey } from './keys/volume-keys.ts'
import type { VolumeTransfer } from './model.ts'
import { refuseMoving } from './moving.ts'
import type { Parts } from './parts.ts'
import type { VolumeTransferService } from './services.ts'
import { visibleType } from './type-lookup.ts'
import { canSee, toListing, visibleVolume } from './visibility.ts'
import { MOVABLE, VOLUME_ACTIONS } from './volume-status.ts'

const SALT_BYTES = 4
const KEY_BYTES = 8

type TransferParts = Parts & { log: Log }

/**
 * A volume changes hands in one transaction: volume, snapshots, counts and the transfer itself. The backend knows nothing
 * of projects. Whoever has the key may accept; only a salted hash of it is kept. Of an encrypted volume in a cloud whose key manager has
 * the key, the new owner is given one of his own, which opens it too; the old one is deleted then.
 */
export function createVolumeTransferService(parts: TransferParts): VolumeTransferService {
  const { db, keys, random, stamp } = parts

  async function visible(context: RequestContext, id: string) {
    const row = await transfers.findOwned(db, id)
    if (row === undefined || !canSee(context, row)) throw notFound(id)
    return row
  }

  return {
    create: async (context, { volumeId, name, noSnapshots, allowEncrypted }) => {
      const key = random.bytes(KEY_BYTES).toString('hex')
      const salt = random.bytes(SALT_BYTES).toString('hex')
      const before = visibleVolume(context, volumeId, await volumes.find(db, volumeId))
      context.authorize('volume:create_transfer', { projectId: before.project_id })
      checkEncryption(before, { noSnapshots, allowEncrypted })
      const keyId = before.encryption_key_id
      const sealedKey = await offerKey(keys, context, keyId)
      const row = await db.transaction(async (trx) => {
        const volume = visibleVolume(context, volumeId, await volumes.lock(trx, volumeId))
        context.authorize('volume:create_transfer', { projectId: volume.project_id })
        refuseMoving(volume)
        if (volume.encryption_key_id !== keyId) throw changedMeanwhile()
        if (!(await volumes.compareAndSet(trx, volumeId, { ...VOLUME_ACTIONS.offer, updatedAt: stamp() }))) {
          throw new ServiceError('InvalidVolume', { reason: 'status must be available' })
        }
        if (!noSnapshots) {
          for (const snapshot of await ownSnapshots(trx, volume)) {
            if (isMovable(snapshot)) continue
            const reason = `snapshot: ${snapshot.id} status must be available`
            throw new ServiceError('InvalidSnapshot', { reason })
          }
        }
        const row: transfers.VolumeTransferRow = {
          id: random.uuid(),
          volume_id: volumeId,
          name,
          salt,
          key_hash: hashOf(salt, key).toString('hex'),
          no_snapshots: noSnapshots,
          source_project_id: volume.project_id,
          sealed_key: sealedKey,
          created_at: stamp(),
          updated_at: null,
        }
        await transfers.insert(trx, row)
        return row
      })
      return { ...toTransfer(row), authKey: key }
    },
    get: async (context, id) => {
      context.authorize('volume:get_transfer', { projectId: context.projectId })
      return toTransfer(await visible(context, id))
    },
    list: async (context, query) => {
      context.authorize('volume:get_all_transfers', { projectId: context.projectId })
      const { rows, ...page } = await transfers.list(db, toListing(context, query))
      return { ...page, items: rows.map(toTransfer) }
    },
    delete: async (context, id) => {
      const { volume_id } = await visible(context, id)
      await db.transaction(async (trx) => {
        const volume = visibleVolume(context, volume_id, await volumes.lock(trx, volume_id))
        context.authorize('volume:delete_transfer', { projectId: volume.project_id })
        if (!(await transfers.remove(trx, id))) throw notFound(id)
        // In any other status an administrator has decided what becomes of the volume.
        await volumes.compareAndSet(trx, volume_id, { ...VOLUME_ACTIONS.callOffOffer, updatedAt: stamp() })
      })
    },
    accept: (context, id, authKey) => acceptTransfer(parts, context, id, authKey),
  }
}

async function acceptTransfer(
  parts: TransferParts,
  context: RequestContext,
  id: string,
  authKey: string,
): Promise<VolumeTransfer> {
  context.authorize('volume:accept_transfer', { projectId: context.projectId })
  const { db, keys, log } = parts
  const { sealed_key: sealedKey } = await opened(db, id, authKey)
  if (sealedKey === null) return takeVolume(parts, context, { id, authKey, key: null })
  if (keys === null) throw keyManagerError()
  const offered = openOffer(keys.seal, sealedKey)
  const { algorithm, secret } = offered
  const stored = await keys.manager.store(context, { algorithm, secret: Buffer.from(secret, 'base64') })
  const taken = await withKey(stored, () => takeVolume(parts, context, { id, authKey, key: { offered, stored } }))
  await removeOrLeave({ keys, log }, offered.id, () => offered.token)
  return taken
}

/** The transfer, for whoever has its key. */
async function opened(db: Db, id: string, authKey: string): Promise<transfers.VolumeTransferRow> {
  const row = await transfers.find(db, id)
  if (row === undefined) throw notFound(id)
  if (timingSafeEqual(hashOf(row.salt, authKey), Buffer.from(row.key_hash, 'hex'))) return row
  throw new ServiceError('InvalidAuthKey', { reason: `Attempt to transfer ${id} with invalid auth key.` })
}

async function takeVolume(
  { db, settings, stamp }: TransferParts,
  context: RequestContext,
  { id, authKey, key }: { id: string; authKey: string; key: { offered: OfferedKey; stored: StoredKey } | null },
): Promise<VolumeTransfer> {
  return db.transaction(async (trx) => {
    const row = await opened(trx, id, authKey)
    const volume = await volumes.lock(trx, row.volume_id)
    // Another may have accepted it while the lock was theirs.
    const isThere = !isShared(trx) || (await transfers.find(trx, id)) !== undefined
    if (volume === undefined || !isThere) throw notFound(id)
    await visibleType(trx, context, volume.volume_type_id) // a private one goes to projects that have access only

    const owner = { project_id: context.projectId, user_id: context.userId }
    const { from, to } = VOLUME_ACTIONS.acceptOffer
    const moved = row.no_snapshots ? [] : await ownSnapshots(trx, volume)
    if (!(await volumes.compareAndSet(trx, volume.id, { from, to, updatedAt: stamp(), set: owner }))) {
      const reason =
        volume.status === 'maintenance'
          ? 'The volume cannot accept transfer in maintenance mode.'
          : `Transfer ${id}: Volume id ${volume.id} expected in awaiting-transfer state.`
      throw new ServiceError('InvalidVolume', { reason })
    }
    for (const snapshot of moved) {
      if (!isMovable(snapshot)) {
        const reason = `Transfer ${id}: Snapshot ${snapshot.id} is not in the expected available state.`
        throw new ServiceError('InvalidSnapshot', { reason })
      }
      await snapshots.update(trx, snapshot.id, { ...owner, updated_at: stamp() })
    }
    await moveVolume(trx, volume, moved, context.projectId, settings.quota).catch(rethrowOverQuota)
    if (key !== null) {
      if (volume.encryption_key_id !== key.offered.id) throw changedMeanwhile()
      await key.stored.keep(trx)
      await volumes.update(trx, volume.id, { encryption_key_id: key.stored.id, updated_at: stamp() })
    } else if (volume.encryption_key_id !== null) await encryptionKeys.give(trx, volume.encryption_key_id, owner)
    await transfers.remove(trx, id)
    return toTransfer(row)
  })
}

/** Those that belong to the owner of the volume; another's, left behind by an earlier transfer, stay with their project. */
async function ownSnapshots(trx: Db, volume: volumes.VolumeRow): Promise<snapshots.SnapshotRow[]> {
  const all = await snapshots.lockOfVolume(trx, volume.id)
  return all.filter((snapshot) => snapshot.project_id === volume.project_id)
}

function isMovable({ status }: snapshots.SnapshotRow): boolean {
  return (MOVABLE as readonly string[]).includes(status)
}

function checkEncryption(
  { encryption_key_id }: volumes.VolumeRow,
  { noSnapshots, allowEncrypted }: { noSnapshots: boolean; allowEncrypted: boolean },
): void {
  if (encryption_key_id === null) return
  if (!allowEncrypted) {
    throw new ServiceError('InvalidVolume', { reason: 'transferring encrypted volume is not supported' })
  }
  if (noSnapshots) {
    const reason = 'transferring an encrypted volume without its snapshots is not supported'
    throw new ServiceError('InvalidVolume', { reason })
  }
}

function hashOf(salt: string, key: string): Buffer {
  return createHmac('sha256', salt).update(key).digest()
}

function toTransfer(row: transfers.VolumeTransferRow): VolumeTransfer {
  return {
    id: row.id,
    volumeId: row.volume_id,
    name: row.name,
    noSnapshots: Boolean(row.no_snapshots),
    sourceProjectId: row.source_project_id,
    createdAt: row.created_at,
  }
}

/** Upstream repeats this one without its kind. */
function rethrowOverQuota(error: unknown): never {
  const isGigabytes = error instanceof ServiceError && error.params.kind === 'VolumeSizeExceedsAvailableQuota'
  throw isGigabytes ? new ServiceError('GigabytesExceeded', { reason: error.params.reason! }) : error
}

function notFound(id: string): ServiceError {
  return new ServiceError('TransferNotFound', { transfer_id: id })
}
