import type { Knex } from 'knex'

/** Indices for what is looked up with every unit of work, and with every change of a type. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('work', (table) => {
    table.index(['lane', 'created_at', 'id'])
  })
  await knex.schema.alterTable('volumes', (table) => {
    const isRetyped = knex.whereNotNull('pending_volume_type_id') // few are at a time
    table.index(['pending_volume_type_id'], 'volumes_pending_volume_type_id_index', { predicate: isRetyped })
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.dropIndex(['pending_volume_type_id'])
  })
  await knex.schema.alterTable('work', (table) => {
    table.dropIndex(['lane', 'created_at', 'id'])
  })
}
