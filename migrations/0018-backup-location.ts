import type { Knex } from 'knex'

/** Backups that were imported under another id than the one that they lie under on their target. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('backups', (table) => {
    table.string('location_id', 36) // null for the id of the row
    table.index(['location_id'])
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('backups', (table) => {
    table.dropIndex(['location_id'])
    table.dropColumn('location_id')
  })
}
