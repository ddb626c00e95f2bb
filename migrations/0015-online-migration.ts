import type { Knex } from 'knex'

/** Volumes that were moved while they were in use, and those that they are moved to. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    // What the backend calls the volume, when that is not its own id.
    table.string('name_id', 36)
    // False for the destination of a migration, which nobody asked to have.
    table.boolean('consumes_quota').notNullable().defaultTo(true)
  })
  await knex.raw('create index volumes_name_id on volumes (name_id) where name_id is not null')
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('drop index volumes_name_id')
  await knex.schema.alterTable('volumes', (table) => {
    table.dropColumn('name_id')
    table.dropColumn('consumes_quota')
  })
}
