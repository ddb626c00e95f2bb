import * as encryptionKeys from '../../db/encryption-keys.ts'
import { ServiceError } from '../../errors.ts'
import type { RequestContext } from '../context.ts'
import type { Parts } from '../parts.ts'
import type { KeyService } from '../services.ts'
import { openKey } from './local-keys.ts'

/** As Barbican's default rules: who may use volumes may read their keys; who only looks may not. */
const ROLES = ['member', 'admin']

/** Keys that are kept here, for the compute service and the image service, which ask in the name of a user. */
export function createKeyService({ db, keys }: Parts): KeyService {
  const visible = (
    context: RequestContext,
    id: string,
    row: encryptionKeys.EncryptionKeyRow | undefined,
  ): encryptionKeys.EncryptionKeyRow => {
    // Also to administrators: what another project keeps secret is not theirs to read.
    if (row?.project_id !== context.projectId) throw new ServiceError('KeyNotFound', { key_id: id })
    if (!ROLES.some((role) => context.roles.includes(role))) throw new ServiceError('OperationNotAuthorized')
    return row
  }

  return {
    get: async (context, id) => {
      const row = visible(context, id, await encryptionKeys.find(db, id))
      const { algorithm, bit_length: bitLength, user_id: userId, created_at: createdAt } = row
      return { id, algorithm, bitLength, userId, createdAt }
    },
    payload: async (context, id) => {
      const row = visible(context, id, await encryptionKeys.find(db, id))
      if (keys === null) throw new ServiceError('KeyNotFound', { key_id: id })
      return openKey(keys.seal, row)
    },
    delete: async (context, id) => {
      await db.transaction(async (trx) => {
        visible(context, id, await encryptionKeys.find(trx, id))
        if (await encryptionKeys.isNeeded(trx, id)) {
          throw new ServiceError('ResourceConflict', { reason: 'A volume or a backup opens with this key.' })
        }
        await encryptionKeys.remove(trx, id)
      })
    },
  }
}
