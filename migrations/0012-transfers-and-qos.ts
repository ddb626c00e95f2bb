import type { Knex } from 'knex'

/** Volumes that wait for a new owner, and what types promise of the speed of their volumes. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('volume_transfers', (table) => {
    table.string('id', 36).primary()
    // A volume waits once; the transfer goes with it.
    table.string('volume_id', 36).notNullable().unique().references('id').inTable('volumes').onDelete('CASCADE')
    table.string('name', 255)
    table.string('salt', 32).notNullable()
    table.string('key_hash', 64).notNullable()
    table.boolean('no_snapshots').notNullable()
    table.string('source_project_id', 255).notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['created_at', 'id'])
  })

  await knex.schema.createTable('qos_specs', (table) => {
    table.string('id', 36).primary()
    table.string('name', 255).notNullable().unique()
    table.string('consumer', 16).notNullable() // front-end, back-end, both
    table.text('specs').notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['created_at', 'id'])
  })
  // A type has one at most.
  await knex.schema.createTable('qos_associations', (table) => {
    table.string('volume_type_id', 36).primary().references('id').inTable('volume_types').onDelete('CASCADE')
    table.string('qos_spec_id', 36).notNullable().references('id').inTable('qos_specs').onDelete('RESTRICT')
    table.index(['qos_spec_id'])
  })
}

export async function down(knex: Knex): Promise<void> {
  for (const table of ['qos_associations', 'qos_specs', 'volume_transfers']) await knex.schema.dropTable(table)
}
