import type { Knex } from 'knex'

/** Several backends: what an administrator said of each, and where volumes are on their way to one. */
export async function up(knex: Knex): Promise<void> {
  // Only services that somebody has touched have a row. The name is that of the backend, not of the host, which may
  // change; a service that is there once has an empty one.
  await knex.schema.createTable('services', (table) => {
    table.string('binary', 64).notNullable()
    table.string('name', 255).notNullable()
    table.boolean('disabled').notNullable()
    table.text('disabled_reason')
    table.boolean('frozen').notNullable()
    table.string('updated_at', 26).notNullable()
    table.primary(['binary', 'name'])
  })
  await knex.schema.alterTable('volumes', (table) => {
    table.text('placement') // JSON, while it is being made: zones, hints, pools that failed
    table.index(['status', 'host', 'size_gib', 'pending_size_gib']) // covers the sums by host
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    table.dropIndex(['status', 'host', 'size_gib', 'pending_size_gib'])
    table.dropColumn('placement')
  })
  await knex.schema.dropTable('services')
}
