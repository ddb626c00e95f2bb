import type { Knex } from 'knex'

/** Backups. They outlive their volume and its snapshots, so that no foreign key leads there. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('backups', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('volume_id', 36).notNullable()
    table.string('snapshot_id', 36) // what was asked to be backed up, when it was a snapshot
    table.string('parent_id', 36).references('id').inTable('backups').onDelete('RESTRICT') // of an incremental one
    table.string('restore_volume_id', 36) // while it is restored
    table.string('name', 255)
    table.text('description')
    table.integer('size_gib').notNullable()
    table.string('status', 32).notNullable()
    table.text('status_reason')
    table.text('metadata').notNullable()
    table.string('availability_zone', 255)
    table.string('container', 255).notNullable()
    table.integer('object_count').notNullable()
    table.integer('next_page').notNullable() // how far copying has come
    table.string('data_timestamp', 26).notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['project_id', 'name'])
    table.index(['created_at', 'id'])
    table.index(['volume_id', 'created_at'])
    table.index(['parent_id'])
  })

  // As `usages`: one row per project, changed in the transaction that changes what it counts.
  await knex.schema.createTable('backup_usages', (table) => {
    table.string('project_id', 255).primary()
    table.integer('backups').notNullable()
    table.integer('backup_gigabytes').notNullable()
    table.check('backups >= 0 and backup_gigabytes >= 0', [], 'backup_usages_never_negative')
  })
}

export async function down(knex: Knex): Promise<void> {
  for (const table of ['backup_usages', 'backups']) await knex.schema.dropTable(table)
}
