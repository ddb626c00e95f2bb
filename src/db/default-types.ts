import type { Db } from './database.ts'

/** The type of a project's volumes that ask for none. */
export interface DefaultTypeRow {
  project_id: string
  volume_type_id: string
  created_at: string
}

export async function set(db: Db, row: DefaultTypeRow): Promise<void> {
  await db('default_volume_types').insert(row).onConflict('project_id').merge(['volume_type_id'])
}

export async function ofProject(db: Db, projectId: string): Promise<DefaultTypeRow | undefined> {
  return db('default_volume_types').where({ project_id: projectId }).first()
}

/** In the order in which they were first set. */
export async function list(db: Db): Promise<DefaultTypeRow[]> {
  return db('default_volume_types').orderBy(['created_at', 'project_id'])
}

/** Whether the type is the default of any project. */
export async function isDefault(db: Db, typeId: string): Promise<boolean> {
  return (await db('default_volume_types').where({ volume_type_id: typeId }).first()) !== undefined
}

export async function remove(db: Db, projectId: string): Promise<void> {
  await db('default_volume_types').where({ project_id: projectId }).delete()
}
