import type { Knex } from 'knex'

/**
 * Volumes and what belongs to them. Three rules hold for every table:
 * JSON is stored as text and times as ISO text (UTC, microseconds), so that SQLite and PostgreSQL compare them alike;
 * rows are deleted, not marked; a foreign key restricts, because what depends on a row must be taken down first.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('volume_types', (table) => {
    table.string('id', 36).primary()
    table.string('name', 255).notNullable().unique()
    table.text('description')
    table.boolean('is_public').notNullable()
    table.text('extra_specs').notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['created_at', 'id'])
  })

  await knex.schema.createTable('volumes', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('name', 255)
    table.text('description')
    table.integer('size_gib').notNullable()
    table.integer('pending_size_gib') // while it is extended: the size that the quota already counts
    table.string('status', 32).notNullable()
    table.text('status_reason')
    table.string('host', 255)
    table.string('availability_zone', 255).notNullable()
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('RESTRICT')
    table.string('snapshot_id', 36) // where it came from; the source may be gone
    table.string('source_volid', 36)
    table.boolean('bootable').notNullable()
    table.boolean('multiattach').notNullable()
    table.text('metadata').notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['project_id', 'name'])
    table.index(['created_at', 'id'])
    table.index(['volume_type_id'])
    table.index(['snapshot_id'])
    table.index(['source_volid'])
  })

  await knex.schema.createTable('snapshots', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('volume_id', 36).notNullable().references('id').inTable('volumes').onDelete('RESTRICT')
    table.string('name', 255)
    table.text('description')
    table.integer('size_gib').notNullable()
    table.string('status', 32).notNullable()
    table.string('previous_status', 32) // while it is deleted together with its volume
    table.text('status_reason')
    table.string('progress', 8).notNullable()
    table.text('metadata').notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['project_id', 'name'])
    table.index(['created_at', 'id'])
    table.index(['volume_id'])
  })

  await knex.schema.createTable('attachments', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('volume_id', 36).notNullable().references('id').inTable('volumes').onDelete('RESTRICT')
    table.string('instance_id', 36)
    table.string('attached_host', 255)
    table.string('mountpoint', 255)
    table.string('status', 32).notNullable()
    table.text('status_reason')
    table.string('attach_mode', 2)
    table.text('connector')
    table.text('connection_info')
    table.string('attached_at', 26)
    table.string('detached_at', 26)
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['created_at', 'id'])
    table.index(['volume_id'])
    table.index(['instance_id'])
  })

  // One row per project, changed in the transaction that changes what it counts. The checks turn a miscount into a
  // failed transaction.
  await knex.schema.createTable('usages', (table) => {
    table.string('project_id', 255).primary()
    table.integer('volumes').notNullable()
    table.integer('snapshots').notNullable()
    table.integer('gigabytes').notNullable()
    table.check('volumes >= 0 and snapshots >= 0 and gigabytes >= 0', [], 'usages_never_negative')
  })

  // Work that outlives a request. One unit per resource: a new one takes the place of the old.
  await knex.schema.createTable('work', (table) => {
    table.string('id', 36).primary()
    table.string('kind', 32).notNullable()
    table.string('resource_id', 36).notNullable().unique()
    table.string('lane', 36).notNullable() // units of one lane run one after the other
    table.string('owner', 255).notNullable()
    table.text('params').notNullable()
    table.string('next_step', 64).notNullable()
    table.integer('attempt').notNullable()
    table.bigInteger('due_at_ms').notNullable()
    table.bigInteger('deadline_at_ms').notNullable()
    table.text('last_error')
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['owner', 'due_at_ms'])
  })
}

export async function down(knex: Knex): Promise<void> {
  for (const table of ['work', 'usages', 'attachments', 'snapshots', 'volumes', 'volume_types']) {
    await knex.schema.dropTable(table)
  }
}
