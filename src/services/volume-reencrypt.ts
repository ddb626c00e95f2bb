import type { Db } from '../db/database.ts'
import * as typeEncryptions from '../db/type-encryptions.ts'
import type { VolumeTypeRow } from '../db/volume-types.ts'
import * as volumes from '../db/volumes.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { type KeyOwner, keyManagerError, passphraseOf } from './keys/key-manager.ts'
import { encryptionDiffers, type Keys, newVolumeKey, removalParams, type VolumeKey } from './keys/volume-keys.ts'
import type { Retype } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import { addTarget } from './swapped-volumes.ts'
import { typeByNameOrId } from './type-lookup.ts'
import { isShared } from './type-rules.ts'
import { visibleVolume } from './visibility.ts'
import { standsAlone } from './volume-migrate.ts'
import type { WorkParams, WorkUnit } from './work/kind.ts'

/**
 * A retype to a type that is encrypted in another way. Keys are asked for before the transaction, as in encrypted-create.ts: what
 * volume and type are like then, they have to be still.
 */
export interface Reencryption {
  /** The key that the volume opens with so far, and what its type says; null for one in the clear. */
  opensWith: string | null
  encryption: typeEncryptions.TypeEncryptionRow | null
  /** Of the volume from then on; null: it will be in the clear. */
  key: VolumeKey | null
  /** What the work needs to open both. */
  params: WorkParams
}

/**
 * Null where there is nothing to do of that kind, or the transaction will say why it cannot be done. Rejects with InvalidInput when a
 * key cannot be had, InvalidVolumeType for a type that nothing here encrypts as.
 */
export async function foreseeReencryption(
  parts: Parts,
  context: RequestContext,
  id: string,
  { newType, migrationPolicy }: Retype,
): Promise<Reencryption | null> {
  const { db, keys } = parts
  if (migrationPolicy === 'never' || !(await typeEncryptions.isAny(db))) return null
  const row = visibleVolume(context, id, await volumes.find(db, id))
  context.authorize('volume:retype', { projectId: row.project_id })
  const type = await typeByNameOrId(db, context, newType)
  const isWanted = await encryptionDiffers(db, row.volume_type_id, type.id)
  if (!isWanted || row.status !== 'available' || !(await standsAlone(db, id))) return null
  if (keys === null) throw keyManagerError()
  const { encryption_key_id: opensWith } = row
  const passphrase = opensWith === null ? null : passphraseOf(await keys.manager.read(context, opensWith))
  const encryption = (await typeEncryptions.ofType(db, type.id)) ?? null
  const key = encryption === null ? null : await newVolumeKey(parts, ownerOfKey(keys, context, row), encryption, null)
  const params = {
    ...(passphrase === null ? {} : { sealedPassphrase: keys.seal.seal(passphrase) }),
    ...key?.header,
    ...removalParams(keys, context),
  }
  return { opensWith, encryption, key, params }
}

/** A key is its project's. Where one is made with the token of whoever asks, that has to be the volume's project. */
function ownerOfKey({ manager }: Keys, context: RequestContext, row: volumes.VolumeRow): KeyOwner {
  if (context.projectId === row.project_id) return context
  if (!manager.isElsewhere) return { projectId: row.project_id, userId: row.user_id, token: context.token }
  const reason = `Volume ${row.id} is of another project, which could not read a key that is made with your token.`
  throw new ServiceError('InvalidInput', { reason })
}

/** Enqueues it in the transaction that gives the volume, which the caller has locked, the type to come. */
export async function enqueueReencryption(
  trx: Db,
  parts: Parts,
  context: RequestContext,
  row: volumes.NamedVolumeRow,
  type: VolumeTypeRow,
  foreseen: Reencryption | null,
): Promise<WorkUnit> {
  const encryption = (await typeEncryptions.ofType(trx, type.id)) ?? null
  const isAsForeseen =
    foreseen !== null &&
    foreseen.opensWith === row.encryption_key_id &&
    foreseen.encryption?.id === encryption?.id &&
    foreseen.encryption?.updated_at === encryption?.updated_at
  if (!isAsForeseen) throw notAsForeseen()
  const { random, stamp, work } = parts
  await foreseen.key?.keep(trx)
  const target = {
    id: random.uuid(),
    host: null,
    availabilityZone: row.availability_zone,
    multiattach: isShared(toPairs(type.extra_specs)),
    keyId: foreseen.key?.id ?? null,
  }
  await addTarget(trx, { ...row, pending_volume_type_id: type.id }, target, stamp())
  await volumes.update(trx, row.id, { migration_status: 'starting', updated_at: stamp() })
  return work.enqueue(trx, {
    kind: 'volume-reencrypt',
    resourceId: row.id,
    lane: row.id,
    step: 'check',
    params: { ...foreseen.params, targetId: target.id, source: row.host! },
    requestId: context.requestId,
  })
}

export function notAsForeseen(): ServiceError {
  return new ServiceError('ResourceConflict', { reason: 'The volume or its type changed meanwhile. Ask again.' })
}

/** What is copied must not change meanwhile, and the compute service does not swap what it decrypts. */
export function refuseInUse({ id }: volumes.VolumeRow): ServiceError {
  const reason =
    `Volume ${id} is in use, and the type is encrypted in another way: it can get it when it is attached nowhere. ` +
    'Detach it first.'
  return new ServiceError('InvalidVolume', { reason })
}
