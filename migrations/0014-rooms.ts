import type { Knex } from 'knex'

/** How much room was ever promised in each pool: who promises some more locks the rows, and so knows of everybody's promises. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('rooms', (table) => {
    table.string('place', 255).primary()
    table.bigInteger('promised_gib').notNullable().defaultTo(0)
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('rooms')
}
