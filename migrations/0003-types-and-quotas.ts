import type { Knex } from 'knex'

/**
 * What belongs to volume types, and quotas. Rows that only say something about a type go with it; a project's default
 * type keeps its type.
 */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.createTable('volume_type_access', (table) => {
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('CASCADE')
    table.string('project_id', 255).notNullable()
    table.string('created_at', 26).notNullable()
    table.primary(['volume_type_id', 'project_id'])
    table.index(['project_id'])
  })

  await knex.schema.createTable('volume_type_encryptions', (table) => {
    table.string('id', 36).primary()
    table
      .string('volume_type_id', 36)
      .notNullable()
      .unique()
      .references('id')
      .inTable('volume_types')
      .onDelete('CASCADE')
    table.string('provider', 255).notNullable()
    table.string('control_location', 16).notNullable()
    table.string('cipher', 255)
    table.integer('key_size')
    table.string('created_at', 26).notNullable()
    table.string('updated_at', 26)
  })

  await knex.schema.createTable('default_volume_types', (table) => {
    table.string('project_id', 255).primary()
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('RESTRICT')
    table.string('created_at', 26).notNullable()
    table.index(['volume_type_id'])
  })

  // A limit that somebody has set, of a project or of a quota class. What is not here has the default of the settings.
  await knex.schema.createTable('quota_limits', (table) => {
    table.string('scope', 8).notNullable() // project, class
    table.string('owner', 255).notNullable()
    table.string('resource', 32).notNullable()
    table.integer('hard_limit').notNullable()
    table.primary(['scope', 'owner', 'resource'])
  })
  await knex.schema.createTable('type_quota_limits', (table) => {
    table.string('scope', 8).notNullable()
    table.string('owner', 255).notNullable()
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('CASCADE')
    table.string('resource', 32).notNullable()
    table.integer('hard_limit').notNullable()
    table.primary(['scope', 'owner', 'volume_type_id', 'resource'])
    table.index(['volume_type_id'])
  })

  // As `usages`, apart for each type; a snapshot counts under the type of its volume.
  await knex.schema.createTable('type_usages', (table) => {
    table.string('project_id', 255).notNullable()
    table.string('volume_type_id', 36).notNullable().references('id').inTable('volume_types').onDelete('CASCADE')
    table.integer('volumes').notNullable()
    table.integer('snapshots').notNullable()
    table.integer('gigabytes').notNullable()
    table.primary(['project_id', 'volume_type_id'])
    table.index(['volume_type_id'])
    table.check('volumes >= 0 and snapshots >= 0 and gigabytes >= 0', [], 'type_usages_never_negative')
  })
  await knex.raw(`
    insert into type_usages (project_id, volume_type_id, volumes, snapshots, gigabytes)
    select project_id, volume_type_id, sum(volumes), sum(snapshots), sum(gigabytes) from (
      select project_id, volume_type_id, 1 as volumes, 0 as snapshots, coalesce(pending_size_gib, size_gib) as gigabytes
        from volumes
      union all
      select snapshots.project_id, volumes.volume_type_id, 0, 1, snapshots.size_gib
        from snapshots join volumes on volumes.id = snapshots.volume_id
    ) as counted
    group by project_id, volume_type_id`)
}

export async function down(knex: Knex): Promise<void> {
  const tables = ['type_usages', 'type_quota_limits', 'quota_limits', 'default_volume_types']
  for (const table of [...tables, 'volume_type_encryptions', 'volume_type_access']) await knex.schema.dropTable(table)
}
