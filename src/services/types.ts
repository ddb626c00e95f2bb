import * as volumeTypes from '../db/volume-types.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import type { Parts } from './parts.ts'
import { toVolumeType } from './rows.ts'
import type { TypeService } from './services.ts'
import { toListing } from './visibility.ts'

export function createTypeService({ db, random, settings, stamp }: Parts): TypeService {
  async function visibleType(context: RequestContext, id: string): Promise<volumeTypes.VolumeTypeRow> {
    const row = await (id === 'default'
      ? volumeTypes.findByName(db, settings.defaultVolumeType)
      : volumeTypes.find(db, id))
    if (row === undefined || !(row.is_public || context.isAdmin)) {
      throw new ServiceError('VolumeTypeNotFound', { volume_type_id: id })
    }
    return row
  }

  return {
    list: async (context, query) => {
      context.authorize('volume_extension:type_get_all', { projectId: context.projectId })
      const listing = toListing(context, query)
      const filters = context.isAdmin ? listing.filters : { ...listing.filters, is_public: true }
      const { rows, ...page } = await volumeTypes.list(db, { ...listing, filters })
      return { ...page, items: rows.map(toVolumeType) }
    },
    get: async (context, id) => {
      context.authorize('volume_extension:type_get', { projectId: context.projectId })
      return toVolumeType(await visibleType(context, id))
    },
    create: async (context, request) => {
      context.authorize('volume_extension:type_create', { projectId: context.projectId })
      const row: volumeTypes.VolumeTypeRow = {
        id: random.uuid(),
        name: request.name,
        description: request.description,
        is_public: request.isPublic,
        extra_specs: JSON.stringify(request.extraSpecs),
        created_at: stamp(),
        updated_at: null,
      }
      if (!(await volumeTypes.insert(db, row))) {
        throw new ServiceError('ResourceConflict', { reason: `Volume Type ${request.name} already exists.` })
      }
      return toVolumeType(row)
    },
    delete: async (context, id) => {
      context.authorize('volume_extension:type_delete', { projectId: context.projectId })
      const row = await visibleType(context, id)
      if (row.name === settings.defaultVolumeType) {
        const reason = `The volume type ${id} is a default volume type and cannot be deleted.`
        throw new ServiceError('InvalidInput', { reason })
      }
      const result = await volumeTypes.remove(db, row.id)
      if (result === 'in-use') {
        throw new ServiceError('InvalidInput', { reason: 'Target volume type is still in use.' })
      }
      if (result === 'absent') throw new ServiceError('VolumeTypeNotFound', { volume_type_id: id })
    },
  }
}
