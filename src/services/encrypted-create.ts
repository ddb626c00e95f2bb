import type { Db } from '../db/database.ts'
import * as snapshots from '../db/snapshots.ts'
import * as typeEncryptions from '../db/type-encryptions.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { Image } from './images/image-service.ts'
import { IMAGE_KEY } from './images/rules.ts'
import { changedMeanwhile, newVolumeKey, type VolumeKey } from './keys/volume-keys.ts'
import type { VolumeCreate } from './model.ts'
import type { Parts } from './parts.ts'
import { defaultType, typeByNameOrId } from './type-lookup.ts'
import { canSee } from './visibility.ts'

/**
 * Keys of volumes that are being made. A key manager may be another service, which nobody asks while a transaction holds locks: so the key
 * is there before, for the type that the volume will have as far as that can be told, and the transaction looks whether it was told right.
 */

/**
 * The key of the volume that is asked for; null when it is not to be encrypted, or the transaction will find that it cannot be made.
 * `copyOf` is the key that opens what it is filled with, where nothing else tells.
 */
export async function foreseeKey(
  parts: Parts,
  context: RequestContext,
  request: VolumeCreate,
  { image = null, copyOf = null }: { image?: Image | null; copyOf?: string | null },
): Promise<VolumeKey | null> {
  const { db, settings } = parts
  context.authorize('volume:create', { projectId: context.projectId })
  if (!(await typeEncryptions.isAny(db))) return null // so that a cloud without them asks no more
  const source = await sourceOf(db, context, request)
  if (source === null && (request.snapshotId ?? request.sourceVolid) !== null) return null
  const named = request.volumeType ?? source?.volume_type_id ?? image?.properties.cinder_img_volume_type ?? null
  let typeId: string
  try {
    const type = await (named === null
      ? defaultType(db, context, settings.defaultVolumeType)
      : typeByNameOrId(db, context, named))
    typeId = type.id
  } catch (error) {
    if (error instanceof ServiceError) return null
    throw error
  }
  const encryption = await typeEncryptions.ofType(db, typeId)
  if (encryption === undefined) return null
  const opensWith = source?.encryption_key_id ?? image?.properties[IMAGE_KEY] ?? copyOf
  return newVolumeKey(parts, context, encryption, opensWith)
}

async function sourceOf(
  db: Db,
  context: RequestContext,
  { snapshotId, sourceVolid }: VolumeCreate,
): Promise<volumes.VolumeRow | null> {
  const snapshot = snapshotId === null ? undefined : await snapshots.find(db, snapshotId)
  if (snapshot !== undefined && !canSee(context, snapshot)) return null
  const id = snapshot?.volume_id ?? sourceVolid
  const volume = id === null ? undefined : await volumes.find(db, id)
  return volume !== undefined && canSee(context, snapshot ?? volume) ? volume : null
}

/**
 * The key that the row is to name, kept with it; null for a volume that is not encrypted. The caller holds the type. Throws
 * ResourceConflict when type or source have changed since the key was made for them.
 */
export async function takeKey(
  trx: Db,
  typeId: string,
  { key, copyOf, multiattach }: { key: VolumeKey | null; copyOf: string | null; multiattach: boolean },
): Promise<string | null> {
  if ((await typeEncryptions.ofType(trx, typeId)) === undefined) return null
  if (multiattach) {
    throw new ServiceError('InvalidVolume', { reason: 'Multiattach cannot be used with encrypted volumes.' })
  }
  if (key?.typeId !== typeId || key.copyOf !== copyOf) throw changedMeanwhile()
  await key.keep(trx)
  return key.id
}
