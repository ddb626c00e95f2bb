import type { Knex } from 'knex'

/** What users are told of work that failed after their request was answered, and which request it was. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('messages', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('request_id', 255)
    table.string('resource_type', 255).notNullable()
    table.string('resource_uuid', 36) // what it is about may be gone
    table.string('event_id', 255).notNullable()
    table.string('message_level', 255).notNullable()
    table.string('action_id', 10).notNullable()
    table.string('detail_id', 10).notNullable()
    table.string('created_at', 26).notNullable()
    table.string('expires_at', 26).notNullable()
    table.index(['project_id', 'created_at', 'id'])
    table.index(['created_at', 'id'])
    table.index(['resource_uuid'])
    table.index(['expires_at'])
  })
  await knex.schema.alterTable('work', (table) => {
    table.string('request_id', 255) // null: enqueued by a version that did not write it
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('work', (table) => {
    table.dropColumn('request_id')
  })
  await knex.schema.dropTable('messages')
}
