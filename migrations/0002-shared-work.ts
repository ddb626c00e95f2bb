import type { Knex } from 'knex'

/** Several processes over one database, lists by name and status, and a name for the database itself. */
export async function up(knex: Knex): Promise<void> {
  // Who is there to work: a process for as long as it says so, by the clock of the database.
  await knex.schema.createTable('processes', (table) => {
    table.string('id', 36).primary()
    table.string('host', 255).notNullable()
    table.integer('pid').notNullable()
    table.string('started_at', 26).notNullable()
    table.bigInteger('seen_at_ms').notNullable()
  })

  // A row is a unit that runs. The key holds that one of a lane does, whichever process runs it.
  await knex.schema.createTable('lanes', (table) => {
    table.string('lane', 36).primary()
    table.string('unit_id', 36).notNullable()
    table.string('owner', 255).notNullable()
    table.index(['owner'])
  })

  await knex.schema.alterTable('work', (table) => {
    table.integer('fence').notNullable().defaultTo(0) // grows when the unit changes hands: late results are refused by it
    table.index(['due_at_ms'])
  })

  // Which database this is: a store remembers the one that drives it.
  await knex.schema.createTable('installation', (table) => {
    table.string('id', 36).primary()
  })
  const isPostgres = knex.client.driverName === 'pg'
  const uuid = isPostgres ? 'gen_random_uuid()::text' : 'lower(hex(randomblob(16)))'
  await knex.raw(`insert into installation (id) select ${uuid}`)

  for (const name of ['volumes', 'snapshots']) {
    await knex.schema.alterTable(name, (table) => {
      table.dropIndex(['project_id', 'name']) // the longer one below begins with it
      table.index(['status', 'created_at', 'id'])
      table.index(['project_id', 'status', 'created_at', 'id'])
    })
    // Lists have what has no name first. SQLite always does; PostgreSQL has to be told, or the index is of no use to them.
    const nullsFirst = isPostgres ? 'nulls first' : ''
    await knex.raw(`create index ${name}_by_name on ${name} (name ${nullsFirst}, created_at, id)`)
    await knex.raw(
      `create index ${name}_of_project_by_name on ${name} (project_id, name ${nullsFirst}, created_at, id)`,
    )
  }
  await knex.schema.alterTable('attachments', (table) => {
    table.index(['project_id', 'status', 'created_at', 'id'])
  })
}
