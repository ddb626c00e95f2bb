import type { Db } from './database.ts'
import { isForeignKeyViolation, isUniqueViolation } from './failures.ts'
import { type Columns, type Listing, listRows, type Rows } from './listing.ts'

export interface GroupTypeRow {
  id: string
  name: string
  description: string | null
  /** SQLite answers 0 and 1. */
  is_public: boolean | number
  /** JSON object of strings. */
  group_specs: string
  created_at: string
  updated_at: string | null
}

export const GROUP_TYPE_COLUMNS: Columns = {
  id: { name: 'id', kind: 'text' },
  name: { name: 'name', kind: 'text' },
  description: { name: 'description', kind: 'text', nullable: true },
  is_public: { name: 'is_public', kind: 'boolean' },
  created_at: { name: 'created_at', kind: 'time' },
  updated_at: { name: 'updated_at', kind: 'time', nullable: true },
}

/** The type of consistency groups, as upstream calls it. */
export const CONSISTENCY_GROUP_TYPE = 'default_cgsnapshot_type'

/** Answers false when a type of that name exists. */
export async function insert(db: Db, row: GroupTypeRow): Promise<boolean> {
  return unlessNameIsTaken(() => db('group_types').insert(row))
}

export async function find(db: Db, id: string): Promise<GroupTypeRow | undefined> {
  return db('group_types').where({ id }).first()
}

/** As `find`; no other transaction changes the type, or gives it to a group, until this one has ended. */
export async function lock(trx: Db, id: string): Promise<GroupTypeRow | undefined> {
  return trx('group_types').where({ id }).forUpdate().first()
}

export async function findByName(db: Db, name: string): Promise<GroupTypeRow | undefined> {
  return db('group_types').where({ name }).first()
}

/** Of all, or of public ones only. */
export async function list(db: Db, listing: Listing, scope: 'public' | 'private' | 'all'): Promise<Rows<GroupTypeRow>> {
  return listRows(
    db,
    'group_types',
    GROUP_TYPE_COLUMNS,
    { ...listing, projectId: null },
    {
      count: false,
      visible: (query) => {
        if (scope !== 'all') query.where('group_types.is_public', scope === 'public')
      },
    },
  )
}

/** Answers false when another type has the name. */
export async function update(
  db: Db,
  id: string,
  columns: Partial<Omit<GroupTypeRow, 'id'>> & { updated_at: string },
): Promise<boolean> {
  return unlessNameIsTaken(() => db('group_types').where({ id }).update(columns))
}

/** `in-use` while a group has the type. */
export async function remove(db: Db, id: string): Promise<'removed' | 'absent' | 'in-use'> {
  if ((await db('volume_groups').where({ group_type_id: id }).first('id')) !== undefined) return 'in-use'
  try {
    return (await db('group_types').where({ id }).delete()) === 1 ? 'removed' : 'absent'
  } catch (error) {
    if (isForeignKeyViolation(error)) return 'in-use'
    throw error
  }
}

async function unlessNameIsTaken(write: () => Promise<unknown>): Promise<boolean> {
  try {
    await write()
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}
