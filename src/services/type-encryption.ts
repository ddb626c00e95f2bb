import * as typeEncryptions from '../db/type-encryptions.ts'
import * as volumeTypes from '../db/volume-types.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { TypeEncryption } from './model.ts'
import type { Parts } from './parts.ts'
import type { TypeEncryptionService } from './services.ts'
import { visibleType } from './type-lookup.ts'

const RULES = 'volume_extension:volume_type_encryption'

export function createTypeEncryptionService({ db, random, stamp }: Parts): TypeEncryptionService {
  function authorize(context: RequestContext, action: 'create' | 'get' | 'update' | 'delete'): void {
    context.authorize(`${RULES}:${action}`, { projectId: context.projectId })
  }

  return {
    get: async (context, typeId) => {
      authorize(context, 'get')
      await visibleType(db, context, typeId)
      const row = await typeEncryptions.ofType(db, typeId)
      return row === undefined ? null : toTypeEncryption(row)
    },
    create: async (context, typeId, request) => {
      authorize(context, 'create')
      return db.transaction(async (trx) => {
        await volumeTypes.lock(trx, typeId) // so that no volume gets the type in between
        if (await volumeTypes.isInUse(trx, typeId)) throw inUse('create')
        await visibleType(trx, context, typeId)
        const row: typeEncryptions.TypeEncryptionRow = {
          id: random.uuid(),
          volume_type_id: typeId,
          provider: request.provider,
          control_location: request.controlLocation,
          cipher: request.cipher,
          key_size: request.keySize,
          created_at: stamp(),
          updated_at: null,
        }
        if (await typeEncryptions.insert(trx, row)) return toTypeEncryption(row)
        throw new ServiceError('InvalidInput', { reason: `Volume type encryption for type ${typeId} already exists.` })
      })
    },
    update: async (context, typeId, { provider, controlLocation, cipher, keySize }) => {
      authorize(context, 'update')
      await db.transaction(async (trx) => {
        await volumeTypes.lock(trx, typeId)
        await visibleType(trx, context, typeId)
        if (await volumeTypes.isInUse(trx, typeId)) throw inUse('update')
        const found = await typeEncryptions.update(trx, typeId, {
          ...(provider === undefined ? {} : { provider }),
          ...(controlLocation === undefined ? {} : { control_location: controlLocation }),
          ...(cipher === undefined ? {} : { cipher }),
          ...(keySize === undefined ? {} : { key_size: keySize }),
          updated_at: stamp(),
        })
        if (!found) throw notFound(typeId)
      })
    },
    delete: async (context, typeId) => {
      authorize(context, 'delete')
      await db.transaction(async (trx) => {
        await volumeTypes.lock(trx, typeId)
        if (await volumeTypes.isInUse(trx, typeId)) throw inUse('delete')
        if (!(await typeEncryptions.remove(trx, typeId))) throw notFound(typeId)
      })
    },
  }
}

function toTypeEncryption(row: typeEncryptions.TypeEncryptionRow): TypeEncryption {
  return {
    id: row.id,
    volumeTypeId: row.volume_type_id,
    provider: row.provider,
    controlLocation: row.control_location,
    cipher: row.cipher,
    keySize: row.key_size,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

function inUse(action: string): ServiceError {
  return new ServiceError('InvalidInput', { reason: `Cannot ${action} encryption specs. Volume type in use.` })
}

function notFound(typeId: string): ServiceError {
  return new ServiceError('VolumeTypeEncryptionNotFound', { type_id: typeId })
}
