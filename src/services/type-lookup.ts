import assert from 'node:assert/strict'
import type { Db } from '../db/database.ts'
import * as defaultTypes from '../db/default-types.ts'
import * as typeAccess from '../db/type-access.ts'
import * as volumeTypes from '../db/volume-types.ts'
import { ServiceError } from '../errors.ts'
import type { RequestContext } from './context.ts'
import { toPairs } from './rows.ts'

/** Finds types as one caller sees them: public ones, private ones that the project has access to; administrators all. */

type Row = volumeTypes.VolumeTypeRow

/** Throws VolumeTypeNotFound. */
export async function visibleType(db: Db, context: RequestContext, id: string): Promise<Row> {
  return visible(db, context, await volumeTypes.find(db, id), () => notFound(id))
}

/** As `visibleType`; nothing changes the type until the transaction has ended. */
export async function lockVisibleType(trx: Db, context: RequestContext, id: string): Promise<Row> {
  return visible(trx, context, await volumeTypes.lock(trx, id), () => notFound(id))
}

/** Of a type that a volume has, or is to get. */
export async function extraSpecsOf(db: Db, id: string): Promise<Record<string, string>> {
  const row = await volumeTypes.find(db, id)
  assert(row !== undefined, 'a type that a volume has is not deleted')
  return toPairs(row.extra_specs)
}

/** The type as it is now, which nothing changes until the transaction that gives it to a volume has ended. */
export async function heldType(trx: Db, { id }: Row): Promise<Row> {
  const row = await volumeTypes.hold(trx, id)
  if (row === undefined) throw notFound(id)
  return row
}

/** An id goes before a name that looks like one. Throws VolumeTypeNotFound or VolumeTypeNotFoundByName. */
export async function typeByNameOrId(db: Db, context: RequestContext, identity: string): Promise<Row> {
  const row = (await volumeTypes.find(db, identity)) ?? (await volumeTypes.findByName(db, identity))
  return visible(db, context, row, () =>
    UUID.test(identity)
      ? notFound(identity)
      : new ServiceError('VolumeTypeNotFoundByName', { volume_type_name: identity }),
  )
}

/**
 * The type of volumes that ask for none: the project's own choice, else the one of the settings, which is anybody's even
 * when it is private. Throws VolumeTypeDefaultMisconfigured when there is none of that name.
 */
export async function defaultType(db: Db, context: RequestContext, settingsName: string): Promise<Row> {
  const own = await defaultTypes.ofProject(db, context.projectId)
  if (own !== undefined) return visibleType(db, context, own.volume_type_id)
  const row = await volumeTypes.findByName(db, settingsName)
  if (row === undefined) throw new ServiceError('VolumeTypeDefaultMisconfigured', { volume_type_name: settingsName })
  return row
}

const UUID = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i

async function visible(
  db: Db,
  context: RequestContext,
  row: Row | undefined,
  absent: () => ServiceError,
): Promise<Row> {
  if (row === undefined) throw absent()
  if (row.is_public || context.isAdmin || (await typeAccess.has(db, row.id, context.projectId))) return row
  throw absent()
}

function notFound(id: string): ServiceError {
  return new ServiceError('VolumeTypeNotFound', { volume_type_id: id })
}
