import type { Knex } from 'knex'
import type { Db } from './database.ts'
import { whereJsonValueHasPart } from './dialect.ts'
import { isForeignKeyViolation, isUniqueViolation } from './failures.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'
import { whereAccessible } from './type-access.ts'

export interface VolumeTypeRow {
  id: string
  name: string
  description: string | null
  /** SQLite answers 0 and 1. */
  is_public: boolean | number
  /** JSON object of strings. */
  extra_specs: string
  created_at: string
  updated_at: string | null
}

export const VOLUME_TYPE_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  name: { name: 'name', kind: 'text' },
  description: { name: 'description', kind: 'text', nullable: true },
  is_public: { name: 'is_public', kind: 'boolean' },
  extra_specs: { name: 'extra_specs', kind: 'json' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** Which types a list has: those open to the project (public, or private with access), all private ones, or all. */
export type TypeScope = { kind: 'open'; projectId: string } | { kind: 'private' } | { kind: 'all' }

/** Its value is a list of zones, and a filter names one of them. */
export const ZONES_SPEC = 'RESKEY:availability_zones'

/** Answers false when a type of that name exists. */
export async function insert(db: Db, row: VolumeTypeRow): Promise<boolean> {
  return unlessNameIsTaken(db('volume_types').insert(row))
}

export async function find(db: Db, id: string): Promise<VolumeTypeRow | undefined> {
  return db('volume_types').where({ id }).first()
}

/** As `find`; no other transaction changes the type, or gives it to a volume, until this one has ended. */
export async function lock(trx: Db, id: string): Promise<VolumeTypeRow | undefined> {
  return trx('volume_types').where({ id }).forUpdate().first()
}

/** As `find`; the type neither goes nor changes until this transaction, which gives it to a volume, has ended. */
export async function hold(trx: Db, id: string): Promise<VolumeTypeRow | undefined> {
  return trx('volume_types').where({ id }).forKeyShare().first()
}

export async function findByName(db: Db, name: string): Promise<VolumeTypeRow | undefined> {
  return db('volume_types').where({ name }).first()
}

/** Types whose extra specs have a key, or one that has it in its name. */
export async function withSpec(db: Db, key: string): Promise<Pick<VolumeTypeRow, 'id' | 'extra_specs'>[]> {
  return db('volume_types').whereLike('extra_specs', `%${key}%`).select('id', 'extra_specs')
}

export async function names(db: Db): Promise<{ id: string; name: string }[]> {
  return db('volume_types').orderBy(['created_at', 'id']).select('id', 'name')
}

/** As `names`; none of the types goes or changes until the transaction has ended. */
export async function holdNames(trx: Db): Promise<{ id: string; name: string }[]> {
  return trx('volume_types').orderBy(['created_at', 'id']).select('id', 'name').forKeyShare()
}

export async function list(db: Db, listing: Listing, scope: TypeScope): Promise<Rows<VolumeTypeRow>> {
  const { extra_specs: specs, ...others } = listing.filters
  const { [ZONES_SPEC]: zone, ...equal } = typeof specs === 'object' && specs !== null ? specs : {}
  const filters = Object.keys(equal).length > 0 ? { ...others, extra_specs: equal } : others
  const visible = (query: Knex.QueryBuilder) => {
    if (scope.kind === 'private') query.where('volume_types.is_public', false)
    if (scope.kind === 'open') {
      query.where((open) => {
        open.where('volume_types.is_public', true)
        open.orWhere((shared) => whereAccessible(shared, scope.projectId))
      })
    }
  }
  const select = (query: Knex.QueryBuilder) => {
    if (zone !== undefined) whereJsonValueHasPart(query, 'volume_types.extra_specs', ZONES_SPEC, zone)
  }
  const whole = { ...listing, filters, projectId: null }
  return listRows(db, 'volume_types', VOLUME_TYPE_COLUMNS, whole, { count: false, select, visible })
}

/** Answers false when another type has the name. */
export async function update(
  db: Db,
  id: string,
  columns: Partial<Omit<VolumeTypeRow, 'id'>> & { updated_at: string },
): Promise<boolean> {
  return unlessNameIsTaken(db('volume_types').where({ id }).update(columns))
}

/** Whether a volume has the type, or is being changed to it. */
export async function isInUse(db: Db, id: string): Promise<boolean> {
  const query = db('volumes').where({ volume_type_id: id }).orWhere({ pending_volume_type_id: id })
  return (await query.first('id')) !== undefined
}

/** With what it says about access, encryption and quotas. `in-use` while a volume has the type. */
export async function remove(db: Db, id: string): Promise<'removed' | 'absent' | 'in-use'> {
  try {
    return (await db('volume_types').where({ id }).delete()) === 1 ? 'removed' : 'absent'
  } catch (error) {
    if (isForeignKeyViolation(error)) return 'in-use'
    throw error
  }
}

async function unlessNameIsTaken(query: Knex.QueryBuilder): Promise<boolean> {
  try {
    await query
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}
