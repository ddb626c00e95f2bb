import type { Knex } from 'knex'

/** Groups of volumes, their types and their snapshots. JSON is text, as in 0001. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('group_types', (table) => {
    table.string('id', 36).primary()
    table.string('name', 255).notNullable().unique()
    table.text('description')
    table.boolean('is_public').notNullable()
    table.text('group_specs').notNullable()
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['created_at', 'id'])
  })

  await knex.schema.createTable('volume_groups', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('name', 255)
    table.text('description')
    table.string('status', 32).notNullable()
    table.text('status_reason')
    table.string('host', 255)
    table.string('availability_zone', 255)
    table.string('group_type_id', 36).notNullable().references('id').inTable('group_types').onDelete('RESTRICT')
    table.boolean('is_consistency_group').notNullable() // of the type that is kept for them
    table.string('group_snapshot_id', 36) // where it came from; the source may be gone
    table.string('source_group_id', 36)
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['project_id', 'name'])
    table.index(['created_at', 'id'])
    table.index(['group_type_id'])
  })

  // The types that volumes of a group may have.
  await knex.schema.createTable('group_volume_types', (table) => {
    table.string('group_id', 36).notNullable().references('id').inTable('volume_groups').onDelete('CASCADE')
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('RESTRICT')
    table.primary(['group_id', 'volume_type_id'])
    table.index(['volume_type_id'])
  })

  await knex.schema.createTable('group_snapshots', (table) => {
    table.string('id', 36).primary()
    table.string('project_id', 255).notNullable()
    table.string('user_id', 255).notNullable()
    table.string('group_id', 36).notNullable().references('id').inTable('volume_groups').onDelete('RESTRICT')
    table.string('group_type_id', 36).notNullable()
    table.boolean('is_consistency_group').notNullable()
    table.string('name', 255)
    table.text('description')
    table.string('status', 32).notNullable()
    table.text('status_reason')
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
    table.index(['project_id', 'created_at', 'id'])
    table.index(['project_id', 'name'])
    table.index(['created_at', 'id'])
    table.index(['group_id'])
  })

  // As `usages`: one row per project, changed in the transaction that changes what it counts.
  await knex.schema.createTable('group_usages', (table) => {
    table.string('project_id', 255).primary()
    table.integer('groups').notNullable()
    table.check('?? >= 0', ['groups'], 'group_usages_never_negative')
  })

  // Written out, since SQLite takes a reference with a new column only so, without making the table anew.
  await knex.raw('alter table volumes add column group_id varchar(36) references volume_groups (id) on delete restrict')
  await knex.raw('alter table volumes add column consistencygroup_id varchar(36)') // the same, of a consistency group
  await knex.raw(
    'alter table snapshots add column group_snapshot_id varchar(36) references group_snapshots (id) on delete restrict',
  )
  await knex.raw('create index volumes_by_group on volumes (group_id, created_at, id)')
  await knex.raw('create index snapshots_by_group_snapshot on snapshots (group_snapshot_id)')
}

export async function down(knex: Knex): Promise<void> {
  await knex.raw('drop index snapshots_by_group_snapshot')
  await knex.raw('drop index volumes_by_group')
  await knex.raw('alter table snapshots drop column group_snapshot_id')
  await knex.raw('alter table volumes drop column consistencygroup_id')
  await knex.raw('alter table volumes drop column group_id')
  for (const table of ['group_usages', 'group_snapshots', 'group_volume_types', 'volume_groups', 'group_types']) {
    await knex.schema.dropTable(table)
  }
}
