import type { Knex } from 'knex'
import type { Db } from './database.ts'
import { isUniqueViolation } from './failures.ts'

/** Which projects may use a private volume type. */
export interface TypeAccessRow {
  volume_type_id: string
  project_id: string
  created_at: string
}

/** Answers false when the project has access already. */
export async function insert(db: Db, row: TypeAccessRow): Promise<boolean> {
  try {
    await db('volume_type_access').insert(row)
    return true
  } catch (error) {
    if (isUniqueViolation(error)) return false
    throw error
  }
}

export async function remove(db: Db, typeId: string, projectId: string): Promise<boolean> {
  return (await db('volume_type_access').where({ volume_type_id: typeId, project_id: projectId }).delete()) === 1
}

export async function has(db: Db, typeId: string, projectId: string): Promise<boolean> {
  const row = await db('volume_type_access').where({ volume_type_id: typeId, project_id: projectId }).first()
  return row !== undefined
}

/** In the order in which they were given access. */
export async function projectsOf(db: Db, typeId: string): Promise<string[]> {
  const rows: TypeAccessRow[] = await db('volume_type_access')
    .where({ volume_type_id: typeId })
    .orderBy(['created_at', 'project_id'])
  return rows.map(({ project_id }) => project_id)
}

/** Condition on `volume_types`: the project has access. */
export function whereAccessible(query: Knex.QueryBuilder, projectId: string): void {
  query.whereExists((access) => {
    access
      .from('volume_type_access')
      .whereRaw('volume_type_access.volume_type_id = volume_types.id')
      .where('volume_type_access.project_id', projectId)
      .select('volume_type_access.project_id')
  })
}
