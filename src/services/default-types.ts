import * as defaultTypes from '../db/default-types.ts'
import { ServiceError } from '../errors.ts'
import type { DefaultType } from './model.ts'
import type { Parts } from './parts.ts'
import type { DefaultTypeService } from './services.ts'
import { heldType, typeByNameOrId } from './type-lookup.ts'

export function createDefaultTypeService({ db, stamp }: Parts): DefaultTypeService {
  return {
    list: async (context) => {
      context.authorize('volume_extension:default_get_all', { projectId: context.projectId })
      return (await defaultTypes.list(db)).map(toDefaultType)
    },
    get: async (context, projectId) => {
      context.authorize('volume_extension:default_get', { projectId })
      const row = await defaultTypes.ofProject(db, projectId)
      if (row === undefined) throw new ServiceError('VolumeTypeProjectDefaultNotFound', { project_id: projectId })
      return toDefaultType(row)
    },
    set: async (context, projectId, nameOrId) => {
      context.authorize('volume_extension:default_set_or_update', { projectId })
      return db.transaction(async (trx) => {
        const named = typeByNameOrId(trx, context, nameOrId).then((type) => heldType(trx, type))
        const type = await named.catch((error: unknown) => {
          // The type is not what the URL names, so its absence is a mistake of the body.
          throw error instanceof ServiceError ? new ServiceError('InvalidInput', { reason: error.message }) : error
        })
        const row = { project_id: projectId, volume_type_id: type.id, created_at: stamp() }
        await defaultTypes.set(trx, row)
        return toDefaultType(row)
      })
    },
    unset: async (context, projectId) => {
      context.authorize('volume_extension:default_unset', { projectId })
      await defaultTypes.remove(db, projectId)
    },
  }
}

function toDefaultType(row: defaultTypes.DefaultTypeRow): DefaultType {
  return { projectId: row.project_id, volumeTypeId: row.volume_type_id }
}
