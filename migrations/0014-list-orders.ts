import type { Knex } from 'knex'

interface Order {
  table: 'snapshots' | 'attachments' | 'backups'
  name: string
  column: string
  /** What is null comes first, as in lists. */
  nullable?: true
}

/** Orders of lists that had no index, as migration 0011 has those of volumes. */
const ORDERS: readonly Order[] = [
  { table: 'snapshots', name: 'volume', column: 'volume_id' },
  { table: 'snapshots', name: 'size', column: 'size_gib' },
  { table: 'snapshots', name: 'progress', column: 'progress' },
  { table: 'snapshots', name: 'change', column: 'updated_at', nullable: true },
  { table: 'attachments', name: 'volume', column: 'volume_id' },
  { table: 'attachments', name: 'change', column: 'updated_at', nullable: true },
  { table: 'backups', name: 'name', column: 'name', nullable: true },
  { table: 'backups', name: 'status', column: 'status' },
  { table: 'backups', name: 'size', column: 'size_gib' },
  { table: 'backups', name: 'container', column: 'container' },
  { table: 'backups', name: 'volume', column: 'volume_id' },
  { table: 'backups', name: 'change', column: 'updated_at', nullable: true },
  { table: 'backups', name: 'data', column: 'data_timestamp' },
]

const TABLES = [...new Set(ORDERS.map(({ table }) => table))]

/** What the new ones begin with, so that nothing needs them any more. */
const SUPERSEDED: readonly [Order['table'], string[]][] = [
  ['snapshots', ['volume_id']],
  ['attachments', ['volume_id']],
  ['backups', ['volume_id', 'created_at']],
]

/** Every order in which snapshots, attachments and backups can be listed, of a project and of all, is that of an index. */
export async function up(knex: Knex): Promise<void> {
  const isPostgres = knex.client.driverName === 'pg' // SQLite has nulls first anyway
  for (const { table, name, column, nullable } of ORDERS) {
    const key = isPostgres && nullable ? `${column} nulls first` : column
    await knex.raw(`create index ${table}_by_${name} on ${table} (${key}, created_at, id)`)
    await knex.raw(`create index ${table}_of_project_by_${name} on ${table} (project_id, ${key}, created_at, id)`)
  }
  for (const table of TABLES) await knex.raw(`create index ${table}_of_project_by_id on ${table} (project_id, id)`)
  for (const [table, columns] of SUPERSEDED) await knex.schema.alterTable(table, (change) => change.dropIndex(columns))
}

export async function down(knex: Knex): Promise<void> {
  for (const [table, columns] of SUPERSEDED) await knex.schema.alterTable(table, (change) => change.index(columns))
  for (const table of TABLES) await knex.raw(`drop index ${table}_of_project_by_id`)
  for (const { table, name } of ORDERS) {
    await knex.raw(`drop index ${table}_of_project_by_${name}`)
    await knex.raw(`drop index ${table}_by_${name}`)
  }
}
