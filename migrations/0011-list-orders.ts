import type { Knex } from 'knex'

/** Orders of lists of volumes that had no index; `nullable` ones have what is null first, as lists do. */
const ORDERS = [
  { name: 'size', column: 'size_gib', nullable: false },
  { name: 'zone', column: 'availability_zone', nullable: false },
  { name: 'bootable', column: 'bootable', nullable: false },
  { name: 'host', column: 'host', nullable: true },
  { name: 'change', column: 'updated_at', nullable: true },
]

/** Every order in which volumes can be listed, of a project and of all, is that of an index. */
export async function up(knex: Knex): Promise<void> {
  const isPostgres = knex.client.driverName === 'pg' // SQLite has nulls first anyway
  for (const { name, column, nullable } of ORDERS) {
    const key = isPostgres && nullable ? `${column} nulls first` : column
    await knex.raw(`create index volumes_by_${name} on volumes (${key}, created_at, id)`)
    await knex.raw(`create index volumes_of_project_by_${name} on volumes (project_id, ${key}, created_at, id)`)
  }
  await knex.raw('create index volumes_of_project_by_id on volumes (project_id, id)')
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('drop index volumes_of_project_by_id')
  for (const { name } of ORDERS) {
    await knex.raw(`drop index volumes_of_project_by_${name}`)
    await knex.raw(`drop index volumes_by_${name}`)
  }
}
