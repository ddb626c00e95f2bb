import type { Knex } from 'knex'
import type { Db } from './database.ts'

/** A limit that was set, of a project or of a quota class. */
export interface QuotaLimitRow {
  scope: 'project' | 'class'
  /** Id of the project or name of the class. */
  owner: string
  /** `volumes`, `backup_gigabytes` and so on, without the name of a type. */
  resource: string
  /** Null: for all types together. */
  volume_type_id: string | null
  /** -1 is no limit. */
  hard_limit: number
}

/** The class whose limits are those of every project that has none of its own. */
export const DEFAULT_CLASS = 'default'

/** Limits that hold for a project as a whole: its own, and those of the default class. */
export async function ofProject(db: Db, projectId: string): Promise<QuotaLimitRow[]> {
  return whole(db).where(projectOrDefault(projectId))
}

/** As `ofProject`, with those that it has for one type, or for every type when that is null. */
export async function ofProjectAndType(db: Db, projectId: string, typeId: string | null): Promise<QuotaLimitRow[]> {
  const own = ofTypes(db).where(projectOrDefault(projectId))
  if (typeId !== null) own.where({ volume_type_id: typeId })
  return whole(db).where(projectOrDefault(projectId)).unionAll(own)
}

export async function ofClass(db: Db, name: string): Promise<QuotaLimitRow[]> {
  const owner = { scope: 'class', owner: name }
  return whole(db).where(owner).unionAll(ofTypes(db).where(owner))
}

/** Writes limits, new or over the old ones. */
export async function set(trx: Db, rows: readonly QuotaLimitRow[]): Promise<void> {
  for (const { volume_type_id, ...row } of rows) {
    if (volume_type_id === null) {
      await trx('quota_limits').insert(row).onConflict(['scope', 'owner', 'resource']).merge(['hard_limit'])
    } else {
      await trx('type_quota_limits')
        .insert({ ...row, volume_type_id })
        .onConflict(['scope', 'owner', 'volume_type_id', 'resource'])
        .merge(['hard_limit'])
    }
  }
}

export async function removeOfProject(trx: Db, projectId: string): Promise<void> {
  for (const table of ['quota_limits', 'type_quota_limits']) {
    await trx(table).where({ scope: 'project', owner: projectId }).delete()
  }
}

function whole(db: Db) {
  return db('quota_limits').select('scope', 'owner', 'resource', 'hard_limit', db.raw('null as volume_type_id'))
}

function ofTypes(db: Db) {
  return db('type_quota_limits').select('scope', 'owner', 'resource', 'hard_limit', 'volume_type_id')
}

function projectOrDefault(projectId: string) {
  return (query: Knex.QueryBuilder) => {
    query
      .where({ scope: 'project', owner: projectId })
      .orWhere((ofClass: Knex.QueryBuilder) => ofClass.where({ scope: 'class', owner: DEFAULT_CLASS }))
  }
}
