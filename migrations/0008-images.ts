import type { Knex } from 'knex'

/** A snapshot keeps what its volume knew of the image that it was made from; a volume knows the image that is made of it. */
export async function up(knex: Knex): Promise<void> {
  await knex.schema.alterTable('snapshots', (table) => {
    table.text('image_metadata').notNullable().defaultTo('{}')
  })
  await knex.schema.alterTable('volumes', (table) => {
    table.string('upload_image_id', 36).unique()
  })
  await knex('snapshots').update({
    image_metadata: knex.raw('(select image_metadata from volumes where volumes.id = snapshots.volume_id)'),
  })
}

export async function down(knex: Knex): Promise<void> {
  await knex.schema.alterTable('snapshots', (table) => {
    table.dropColumn('image_metadata')
  })
  await knex.schema.alterTable('volumes', (table) => {
    table.dropUnique(['upload_image_id'])
    table.dropColumn('upload_image_id')
  })
}
