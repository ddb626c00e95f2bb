import type { Knex } from 'knex'

/** Sums by host of the volumes of a type, whose extra specs may say how many copies of them there are. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.dropIndex(['volume_type_id'])
    table.index(['volume_type_id', 'host', 'size_gib']) // covers them
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.dropIndex(['volume_type_id', 'host', 'size_gib'])
    table.index(['volume_type_id'])
  })
}
