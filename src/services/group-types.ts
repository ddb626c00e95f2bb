import type { Db } from '../db/database.ts'
import * as groupTypes from '../db/group-types.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { toGroupType } from './group-rows.ts'
import { withoutKey } from './metadata.ts'
import type { Parts } from './parts.ts'
import { toPairs } from './rows.ts'
import type { GroupTypeService } from './services.ts'
import { toListing } from './visibility.ts'

/** As many as one request may bring; together no more either, so that a type does not fill a page. */
const SPECS_MAX = 128

export function createGroupTypeService({ db, random, settings, stamp }: Parts): GroupTypeService {
  async function changeSpecs(
    context: RequestContext,
    id: string,
    rule: string,
    change: (specs: Record<string, string>) => Record<string, string>,
  ): Promise<void> {
    context.authorize(rule, { projectId: context.projectId })
    await db.transaction(async (trx) => {
      const row = visible(context, id, await groupTypes.lock(trx, id))
      const specs = change(toPairs(row.group_specs))
      checkSpecs(specs)
      await groupTypes.update(trx, id, { group_specs: JSON.stringify(specs), updated_at: stamp() })
    })
  }

  return {
    list: async (context, query, scope) => {
      const { rows, ...page } = await groupTypes.list(db, toListing(context, query), context.isAdmin ? scope : 'public')
      return { ...page, items: rows.map(toGroupType) }
    },
    get: async (context, id) => toGroupType(visible(context, id, await groupTypes.find(db, id))),
    getDefault: async () => {
      const name = settings.defaultGroupType
      const row = name === null ? undefined : await groupTypes.findByName(db, name)
      if (row === undefined) {
        throw new ServiceError('GroupTypeSpecsNotFound', { reason: 'Default group type can not be found.' })
      }
      return toGroupType(row)
    },
    create: async (context, request) => {
      context.authorize('group:group_types:create', { projectId: context.projectId })
      checkSpecs(request.groupSpecs)
      const row: groupTypes.GroupTypeRow = {
        id: random.uuid(),
        name: request.name,
        description: request.description,
        is_public: request.isPublic,
        group_specs: JSON.stringify(request.groupSpecs),
        created_at: stamp(),
        updated_at: null,
      }
      if (!(await groupTypes.insert(db, row))) throw nameTaken(request.name)
      return toGroupType(row)
    },
    update: async (context, id, { name, description, isPublic }) => {
      context.authorize('group:group_types:update', { projectId: context.projectId })
      return db.transaction(async (trx) => {
        const row = visible(context, id, await groupTypes.lock(trx, id))
        const columns = {
          ...(name === undefined ? {} : { name }),
          ...(description === undefined ? {} : { description }),
          ...(isPublic === undefined ? {} : { is_public: isPublic }),
          updated_at: stamp(),
        }
        if (!(await groupTypes.update(trx, id, columns))) throw nameTaken(name ?? row.name)
        return toGroupType({ ...row, ...columns })
      })
    },
    delete: async (context, id) => {
      context.authorize('group:group_types:delete', { projectId: context.projectId })
      await db.transaction(async (trx) => {
        visible(context, id, await groupTypes.lock(trx, id))
        if ((await groupTypes.remove(trx, id)) === 'in-use') throw invalid('Target group type is still in use.')
      })
    },

    specs: async (context, id) => {
      context.authorize('group:group_types_specs:get_all', { projectId: context.projectId })
      return toPairs(visible(context, id, await groupTypes.find(db, id)).group_specs)
    },
    spec: async (context, id, key) => {
      context.authorize('group:group_types_specs:get', { projectId: context.projectId })
      const specs = toPairs(visible(context, id, await groupTypes.find(db, id)).group_specs)
      if (Object.hasOwn(specs, key)) return specs[key]!
      const reason = `Group Type ${id} has no extra spec with key ${key}.`
      throw new ServiceError('GroupTypeSpecsNotFound', { reason })
    },
    addSpecs: (context, id, specs) =>
      changeSpecs(context, id, 'group:group_types_specs:create', (old) => ({ ...old, ...specs })),
    setSpec: (context, id, key, value) =>
      changeSpecs(context, id, 'group:group_types_specs:update', (old) => ({ ...old, [key]: value })),
    removeSpec: (context, id, key) =>
      changeSpecs(context, id, 'group:group_types_specs:delete', (old) => {
        const rest = withoutKey(old, key)
        if (rest !== null) return rest
        const reason = `Group Type ${id} has no specs with key ${key}.`
        throw new ServiceError('GroupTypeSpecsNotFound', { reason })
      }),
  }
}

/** By id, or by a name that may look like one. Throws GroupTypeNotFound or GroupTypeNotFoundByName. */
export async function groupTypeByNameOrId(
  db: Db,
  context: RequestContext,
  identity: string,
): Promise<groupTypes.GroupTypeRow> {
  const row = (await groupTypes.find(db, identity)) ?? (await groupTypes.findByName(db, identity))
  if (row !== undefined && (context.isAdmin || row.is_public)) return row
  throw UUID.test(identity)
    ? new ServiceError('GroupTypeNotFound', { group_type_id: identity })
    : new ServiceError('GroupTypeNotFoundByName', { group_type_name: identity })
}

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i

/** A private type has no projects that could use it, since nobody can give them access. */
function visible(
  context: RequestContext,
  id: string,
  row: groupTypes.GroupTypeRow | undefined,
): groupTypes.GroupTypeRow {
  if (row === undefined || !(context.isAdmin || row.is_public)) {
    throw new ServiceError('GroupTypeNotFound', { group_type_id: id })
  }
  return row
}

function checkSpecs(specs: Readonly<Record<string, string>>): void {
  if (Object.keys(specs).length > SPECS_MAX) throw invalid(`A group type has at most ${SPECS_MAX} specs.`)
}

function nameTaken(name: string): ServiceError {
  return new ServiceError('ResourceConflict', { reason: `Group Type ${name} already exists.` })
}

function invalid(reason: string): ServiceError {
  return new ServiceError('InvalidInput', { reason })
}
