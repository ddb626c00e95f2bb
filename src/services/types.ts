import type { Db } from '../db/database.ts'
import * as defaultTypes from '../db/default-types.ts'
import * as qosSpecs from '../db/qos-specs.ts'
import * as typeAccess from '../db/type-access.ts'
import * as volumeTypes from '../db/volume-types.ts'
import { badRequest, ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { withoutKey } from './metadata.ts'
import type { VolumeType } from './model.ts'
import type { Parts } from './parts.ts'
import { toPairs, toVolumeType } from './rows.ts'
import type { TypeService } from './services.ts'
import { defaultType, heldType, lockVisibleType, visibleType } from './type-lookup.ts'
import { toListing } from './visibility.ts'

/** As many as one request may bring; together no more either, so that a type does not fill a page. */
const SPECS_MAX = 128

export function createTypeService({ db, random, settings, stamp }: Parts): TypeService {
  /** Changes the extra specs of a type that no volume has, in one transaction with looking. */
  async function changeSpecs(
    context: RequestContext,
    id: string,
    rule: string,
    change: (specs: Record<string, string>) => Record<string, string>,
  ): Promise<void> {
    context.authorize(rule, { projectId: context.projectId })
    await db.transaction(async (trx) => {
      const row = await lockVisibleType(trx, context, id)
      if (await volumeTypes.isInUse(trx, id)) throw badRequest('Volume Type is currently in use.')
      const specs = change(toPairs(row.extra_specs))
      checkSpecs(specs)
      await volumeTypes.update(trx, id, { extra_specs: JSON.stringify(specs), updated_at: stamp() })
    })
  }

  return {
    list: async (context, query, scope) => {
      context.authorize('volume_extension:type_get_all', { projectId: context.projectId })
      const { rows, ...page } = await volumeTypes.list(db, toListing(context, query), scopeOf(context, scope))
      return { ...page, items: await withQos(db, rows) }
    },
    get: async (context, id) => {
      context.authorize('volume_extension:type_get', { projectId: context.projectId })
      return oneWithQos(db, await visibleType(db, context, id))
    },
    getDefault: async (context) => {
      context.authorize('volume_extension:type_get', { projectId: context.projectId })
      return oneWithQos(db, await defaultType(db, context, settings.defaultVolumeType))
    },
    create: async (context, request) => {
      context.authorize('volume_extension:type_create', { projectId: context.projectId })
      checkSpecs(request.extraSpecs)
      const row: volumeTypes.VolumeTypeRow = {
        id: random.uuid(),
        name: request.name,
        description: request.description,
        is_public: request.isPublic,
        extra_specs: JSON.stringify(request.extraSpecs),
        created_at: stamp(),
        updated_at: null,
      }
      if (!(await volumeTypes.insert(db, row))) throw nameTaken(request.name)
      return toVolumeType(row)
    },
    update: async (context, id, { name, description, isPublic }) => {
      context.authorize('volume_extension:type_update', { projectId: context.projectId })
      return db.transaction(async (trx) => {
        const row = await lockVisibleType(trx, context, id)
        const columns = {
          ...(name === undefined ? {} : { name }),
          ...(description === undefined ? {} : { description }),
          ...(isPublic === undefined ? {} : { is_public: isPublic }),
          updated_at: stamp(),
        }
        if (!(await volumeTypes.update(trx, id, columns))) throw nameTaken(name ?? row.name)
        return toVolumeType({ ...row, ...columns })
      })
    },
    delete: async (context, id) => {
      context.authorize('volume_extension:type_delete', { projectId: context.projectId })
      await db.transaction(async (trx) => {
        const row = await lockVisibleType(trx, context, id)
        if (row.name === settings.defaultVolumeType || (await defaultTypes.isDefault(trx, id))) {
          throw badRequest(`The volume type ${id} is a default volume type and cannot be deleted.`)
        }
        if ((await volumeTypes.isInUse(trx, id)) || (await volumeTypes.remove(trx, id)) === 'in-use') {
          throw badRequest('Target volume type is still in use.')
        }
      })
    },

    addSpecs: (context, id, specs) =>
      changeSpecs(context, id, 'volume_extension:types_extra_specs:create', (old) => ({ ...old, ...specs })),
    setSpec: (context, id, key, value) =>
      changeSpecs(context, id, 'volume_extension:types_extra_specs:update', (old) => ({ ...old, [key]: value })),
    removeSpec: (context, id, key) =>
      changeSpecs(context, id, 'volume_extension:types_extra_specs:delete', (old) => {
        const rest = withoutKey(old, key)
        if (rest !== null) return rest
        throw new ServiceError('VolumeTypeExtraSpecsNotFound', { volume_type_id: id, extra_specs_key: key })
      }),

    addAccess: async (context, id, projectId) => {
      context.authorize('volume_extension:volume_type_access:addProjectAccess', { projectId: context.projectId })
      await db.transaction(async (trx) => {
        await privateType(trx, context, id)
        if (await typeAccess.insert(trx, { volume_type_id: id, project_id: projectId, created_at: stamp() })) return
        const reason = `Volume type access for ${id} / ${projectId} combination already exists.`
        throw new ServiceError('ResourceConflict', { reason })
      })
    },
    removeAccess: async (context, id, projectId) => {
      context.authorize('volume_extension:volume_type_access:removeProjectAccess', { projectId: context.projectId })
      await privateType(db, context, id)
      if (await typeAccess.remove(db, id, projectId)) return
      const reason = `Volume type access not found for ${id} / ${projectId} combination.`
      throw new ServiceError('VolumeTypeAccessNotFound', { reason })
    },
    listAccess: async (context, id) => {
      context.authorize('volume_extension:volume_type_access:get_all_for_type', { projectId: context.projectId })
      const row = await visibleType(db, context, id)
      if (!row.is_public) return typeAccess.projectsOf(db, id)
      const reason = 'Access list not available for public volume types.'
      throw new ServiceError('VolumeTypeAccessNotFound', { reason })
    },
  }
}

async function withQos(db: Db, rows: readonly volumeTypes.VolumeTypeRow[]): Promise<VolumeType[]> {
  const ids = rows.map(({ id }) => id)
  const qos = await qosSpecs.idsOfTypes(db, ids)
  return rows.map((row) => toVolumeType(row, qos.get(row.id)))
}

async function oneWithQos(db: Db, row: volumeTypes.VolumeTypeRow): Promise<VolumeType> {
  const [type] = await withQos(db, [row])
  return type!
}

/** What each caller means by public, private and all types. */
function scopeOf(context: RequestContext, scope: 'public' | 'private' | 'all'): volumeTypes.TypeScope {
  if (!context.isAdmin || scope === 'public') return { kind: 'open', projectId: context.projectId }
  return { kind: scope }
}

/** Within a transaction, the type stays and stays private until that has ended. */
async function privateType(db: Db, context: RequestContext, id: string): Promise<void> {
  const row = await heldType(db, await visibleType(db, context, id))
  if (!row.is_public) return
  const reason = 'Type access modification is not applicable to public volume type.'
  throw new ServiceError('InvalidVolumeType', { reason })
}

/** What extra specs may not say together. */
function checkSpecs(specs: Readonly<Record<string, string>>): void {
  if (specs.multiattach === '<is> True' && specs.cacheable === '<is> True') {
    throw badRequest('cacheable cannot be set with multiattach.')
  }
  if (Object.keys(specs).length > SPECS_MAX) throw badRequest(`A volume type has at most ${SPECS_MAX} extra specs.`)
}

function nameTaken(name: string): ServiceError {
  return new ServiceError('ResourceConflict', { reason: `Volume Type ${name} already exists.` })
}
