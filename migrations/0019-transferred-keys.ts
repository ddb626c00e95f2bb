import type { Knex } from 'knex'

/** Volumes that wait for a new owner, with keys that are somebody's own in a key manager elsewhere. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volume_transfers', (table) => {
    table.text('sealed_key') // null for what opens without, or with a key that goes along by itself
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volume_transfers', (table) => {
    table.dropColumn('sealed_key')
  })
}
