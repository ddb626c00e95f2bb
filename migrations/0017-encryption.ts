import type { Knex } from 'knex'

/** Volumes that are encrypted by whoever attaches them, and the keys that are kept here for that. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('volumes', (table) => {
    // Where the key is, here or in another key manager. Of every volume another one, also when it opens the same bytes.
    table.string('encryption_key_id', 36)
  })
  await knex.schema.alterTable('backups', (table) => {
    table.string('encryption_key_id', 36)
  })
  await knex.schema.createTable('encryption_keys', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('algorithm', 255).notNullable()
    table.integer('bit_length').notNullable()
    table.text('sealed').notNullable() // see src/services/keys/local-keys.ts
    table.string('created_at', 26).notNullable()
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('encryption_keys')
  await knex.schema.alterTable('backups', (table) => table.dropColumn('encryption_key_id'))
  await knex.schema.alterTable('volumes', (table) => table.dropColumn('encryption_key_id'))
}
