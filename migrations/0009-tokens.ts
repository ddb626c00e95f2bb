import type { Knex } from 'knex'

/** What lets every process honour the tokens of `auth: local` that another one gave out. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('installation', (table) => {
    table.string('token_key', 64) // base64url; made when it is first needed
  })
  await knex.schema.createTable('revoked_tokens', (table) => {
    table.string('id', 36).primary()
    table.bigInteger('expires_at_ms').notNullable() // nobody has to remember it any longer
    table.index(['expires_at_ms'])
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.dropTable('revoked_tokens')
  await knex.schema.alterTable('installation', (table) => table.dropColumn('token_key'))
}
