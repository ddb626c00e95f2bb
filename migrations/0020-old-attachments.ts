import type { Knex } from 'knex'

/** Attachments that were made the old way, which nobody but their maker looks after. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('attachments', (table) => {
    table.boolean('made_by_connection').notNullable().defaultTo(false)
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('attachments', (table) => {
    table.dropColumn('made_by_connection')
  })
}
