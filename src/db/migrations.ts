import type { Knex } from 'knex'
import * as volumes from '../../migrations/0001-volumes.ts'
import * as backups from '../../migrations/0007-backups.ts'

/** In the order they run. Listed by hand, so that the built program carries them and never reads a directory. */
const MIGRATIONS: readonly (Knex.Migration & { name: string })[] = [
  { name: '0001-volumes', ...volumes },
  { name: '0007-backups', ...backups },
]

export const migrationSource: Knex.MigrationSource<(typeof MIGRATIONS)[number]> = {
  getMigrations: async () => [...MIGRATIONS],
  getMigrationName: (migration) => migration.name,
  getMigration: async (migration) => migration,
}
