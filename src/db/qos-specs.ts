import type { Db } from './database.ts'
import { isUniqueViolation } from './failures.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

/** What is promised of the speed of volumes, to the types that it is associated with. */
export interface QosSpecRow {
  id: string
  name: string
  consumer: 'front-end' | 'back-end' | 'both'
  /** JSON object of strings. */
  specs: string
  created_at: string
  updated_at: string | null
}

export const QOS_SPEC_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  name: { name: 'name', kind: 'text' },
  consumer: { name: 'consumer', kind: 'text' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** Answers false when there is one of that name. */
export async function insert(db: Db, row: QosSpecRow): Promise<boolean> {
  try {
    await db('qos_specs').insert(row)
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}

export async function find(db: Db, id: string): Promise<QosSpecRow | undefined> {
  return db('qos_specs').where({ id }).first()
}

/** As `find`; no other transaction changes it, or associates it, until this one has ended. */
export async function lock(trx: Db, id: string): Promise<QosSpecRow | undefined> {
  return trx('qos_specs').where({ id }).forUpdate().first()
}

export async function list(db: Db, listing: Listing): Promise<Rows<QosSpecRow>> {
  return listRows(db, 'qos_specs', QOS_SPEC_COLUMNS, { ...listing, projectId: null }, { count: false })
}

export async function update(
  trx: Db,
  id: string,
  columns: Partial<Pick<QosSpecRow, 'consumer' | 'specs'>> & { updated_at: string },
): Promise<void> {
  await trx('qos_specs').where({ id }).update(columns)
}

/** It must have no types any more. */
export async function remove(trx: Db, id: string): Promise<void> {
  await trx('qos_specs').where({ id }).delete()
}

export async function ofType(db: Db, typeId: string): Promise<QosSpecRow | undefined> {
  return db('qos_specs')
    .join('qos_associations', 'qos_associations.qos_spec_id', 'qos_specs.id')
    .where('qos_associations.volume_type_id', typeId)
    .first('qos_specs.*')
}

/** The id of what each type has; none for types that have nothing. */
export async function idsOfTypes(db: Db, typeIds: readonly string[]): Promise<Map<string, string>> {
  const rows: { volume_type_id: string; qos_spec_id: string }[] = await db('qos_associations').whereIn(
    'volume_type_id',
    typeIds,
  )
  return new Map(rows.map((row) => [row.volume_type_id, row.qos_spec_id]))
}

/** Types that have it, oldest first. */
export async function typesOf(db: Db, id: string): Promise<{ id: string; name: string }[]> {
  return db('volume_types')
    .join('qos_associations', 'qos_associations.volume_type_id', 'volume_types.id')
    .where('qos_associations.qos_spec_id', id)
    .orderBy(['volume_types.created_at', 'volume_types.id'])
    .select('volume_types.id', 'volume_types.name')
}

/** The type must have none. */
export async function associate(trx: Db, id: string, typeId: string): Promise<void> {
  await trx('qos_associations').insert({ volume_type_id: typeId, qos_spec_id: id })
}

export async function disassociate(trx: Db, id: string, typeId: string): Promise<void> {
  await trx('qos_associations').where({ volume_type_id: typeId, qos_spec_id: id }).delete()
}

export async function disassociateAll(trx: Db, id: string): Promise<void> {
  await trx('qos_associations').where({ qos_spec_id: id }).delete()
}
