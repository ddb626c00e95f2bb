import type { Knex } from 'knex'

/** What actions on volumes leave behind. JSON is text, as in 0001. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.string('migration_status', 64)
    table.string('pending_volume_type_id', 36) // while it is retyped: the type that the quota already counts
    table.text('admin_metadata').notNullable().defaultTo('{}')
    table.text('image_metadata').notNullable().defaultTo('{}')
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.dropColumns('migration_status', 'pending_volume_type_id', 'admin_metadata', 'image_metadata')
  })
}
