import type { Db } from '../../db/database.ts'
import * as encryptionKeys from '../../db/encryption-keys.ts'
import type { Random } from '../../runtime/random.ts'
import type { Seal } from '../seal.ts'
import type { Stamp } from '../stamp.ts'
import { type Key, type KeyManager, keyManagerError } from './key-manager.ts'

/**
 * Keys in the database, each sealed with the key of the data directory: neither the database nor a copy of it tells them. They come and go
 * in the transactions of the volumes and backups that have them.
 */
export function createLocalKeys({
  db,
  seal,
  random,
  stamp,
}: {
  db: Db
  seal: Seal
  random: Random
  stamp: Stamp
}): KeyManager {
  return {
    isElsewhere: false,
    store: async ({ projectId, userId }, key) => {
      const id = random.uuid()
      const row: encryptionKeys.EncryptionKeyRow = {
        id,
        project_id: projectId,
        user_id: userId,
        algorithm: key.algorithm,
        bit_length: key.secret.length * 8,
        sealed: seal.seal(`${id} ${key.secret.toString('base64')}`),
        created_at: stamp(),
      }
      return { id, keep: (trx) => encryptionKeys.insert(trx, row), discard: async () => {} }
    },
    read: async ({ projectId }, id) => {
      const row = await encryptionKeys.find(db, id)
      if (row?.project_id !== projectId) throw keyManagerError()
      return openKey(seal, row)
    },
    remove: async () => {}, // the transaction does that which removes what it opens
  }
}

/** Throws ServiceUnavailable for a key that was sealed elsewhere, or under another id. */
export function openKey(seal: Seal, row: encryptionKeys.EncryptionKeyRow): Key {
  const [id, secret] = seal.open(row.sealed).split(' ')
  if (id !== row.id || secret === undefined) throw keyManagerError()
  return { algorithm: row.algorithm, secret: Buffer.from(secret, 'base64') }
}
