import type { Knex } from 'knex'
import * as volumes from '../../migrations/0001-volumes.ts'
import * as sharedWork from '../../migrations/0002-shared-work.ts'
import * as typesAndQuotas from '../../migrations/0003-types-and-quotas.ts'
import * as messages from '../../migrations/0004-messages.ts'
import * as volumeActions from '../../migrations/0005-volume-actions.ts'
import * as backends from '../../migrations/0006-backends.ts'
import * as backups from '../../migrations/0007-backups.ts'
import * as images from '../../migrations/0008-images.ts'
import * as tokens from '../../migrations/0009-tokens.ts'
import * as lookups from '../../migrations/0010-lookups.ts'
import * as listOrders from '../../migrations/0011-list-orders.ts'
import * as transfersAndQos from '../../migrations/0012-transfers-and-qos.ts'
import * as groups from '../../migrations/0013-groups.ts'
import * as moreListOrders from '../../migrations/0014-list-orders.ts'
import * as rooms from '../../migrations/0014-rooms.ts'
import * as onlineMigration from '../../migrations/0015-online-migration.ts'
import * as typeHosts from '../../migrations/0016-type-hosts.ts'
import * as encryption from '../../migrations/0017-encryption.ts'
import * as backupLocation from '../../migrations/0018-backup-location.ts'
import * as transferredKeys from '../../migrations/0019-transferred-keys.ts'
import * as oldAttachments from '../../migrations/0020-old-attachments.ts'
import { StartRefused } from '../errors.ts'
import { isPostgres } from './dialect.ts'

interface Migration {
  name: string
  up(trx: Knex): Promise<void>
}

/** In the order they run. Listed by hand, so that the built program carries them and never reads a directory. */
export const MIGRATIONS: readonly Migration[] = [
  { name: '0001-volumes', ...volumes },
  { name: '0002-shared-work', ...sharedWork },
  { name: '0003-types-and-quotas', ...typesAndQuotas },
  { name: '0004-messages', ...messages },
  { name: '0005-volume-actions', ...volumeActions },
  { name: '0006-backends', ...backends },
  { name: '0007-backups', ...backups },
  { name: '0008-images', ...images },
  { name: '0009-tokens', ...tokens },
  { name: '0010-lookups', ...lookups },
  { name: '0011-list-orders', ...listOrders },
  { name: '0012-transfers-and-qos', ...transfersAndQos },
  { name: '0013-groups', ...groups },
  { name: '0014-list-orders', ...moreListOrders },
  { name: '0014-rooms', ...rooms },
  { name: '0015-online-migration', ...onlineMigration },
  { name: '0016-type-hosts', ...typeHosts },
  { name: '0017-encryption', ...encryption },
  { name: '0018-backup-location', ...backupLocation },
  { name: '0019-transferred-keys', ...transferredKeys },
  { name: '0020-old-attachments', ...oldAttachments },
]

/** The name that knex gives it: databases of the first version have it. */
const TABLE = 'knex_migrations'
/** Any number, the same for all processes. */
const POSTGRES_LOCK = 0x636f6c6c

/**
 * Brings the schema up to date, in one transaction: a crash leaves the old schema or the new one. Of several processes that
 * start together one migrates and the others wait for it. Throws StartRefused for a database of a newer version.
 * `migrations` are those of this version, or the first of them.
 */
export async function migrate(db: Knex, migrations: readonly Migration[] = MIGRATIONS): Promise<void> {
  const postgres = isPostgres(db)
  // SQLite rebuilds a table to change it, which must not count as deleting what others refer to.
  if (!postgres) await db.raw('pragma foreign_keys = off')
  try {
    await db.transaction(async (trx) => {
      if (postgres) await trx.raw('select pg_advisory_xact_lock(?)', [POSTGRES_LOCK])
      await createTable(trx)
      const done = new Set<string>(await trx(TABLE).pluck('name'))
      refuseNewer(done, migrations)
      const waiting = migrations.filter(({ name }) => !done.has(name))
      for (const { name, up } of waiting) {
        await up(trx)
        await trx(TABLE).insert({ name, batch: 1, migration_time: trx.fn.now() })
      }
      if (waiting.length === 0) return
      if (postgres) await compareBytes(trx)
      else await checkReferences(trx)
    })
  } finally {
    if (!postgres) await db.raw('pragma foreign_keys = on')
  }
}

/** Throws StartRefused unless the schema is that of this version. For those who only look. */
export async function requireCurrent(db: Knex): Promise<void> {
  const done = new Set<string>((await db.schema.hasTable(TABLE)) ? await db(TABLE).pluck('name') : [])
  refuseNewer(done, MIGRATIONS)
  const waiting = MIGRATIONS.filter(({ name }) => !done.has(name))
  if (waiting.length === 0) return
  throw new StartRefused(
    'the database is of an older version of collie; `collie serve` of this version brings it up to date',
  )
}

/** On SQLite this is also what takes the lock for writing, before anything is read. */
async function createTable(trx: Knex): Promise<void> {
  if (isPostgres(trx)) {
    await trx.raw(
      'create table if not exists ?? (id serial primary key, name varchar(255), batch integer, migration_time timestamptz)',
      [TABLE],
    )
    return
  }
  await trx.raw('create table collie_migrating (id integer)') // first of all: a transaction that has read cannot wait to write
  await trx.raw('drop table collie_migrating')
  await trx.raw('drop table if exists knex_migrations_lock') // knex's own; a crash left it locked for good
  await trx.raw(
    `create table if not exists ?? (
      id integer not null primary key autoincrement, name varchar(255), batch integer, migration_time datetime)`,
    [TABLE],
  )
}

function refuseNewer(done: ReadonlySet<string>, migrations: readonly Migration[]): void {
  const unknown = [...done].filter((name) => !migrations.some((migration) => migration.name === name))
  if (unknown.length === 0) return
  throw new StartRefused(
    `the database was written by a newer version of collie (${unknown.join(', ')}); ` +
      'run that version or a later one, or bring back a backup from before the upgrade',
  )
}

/**
 * Gives every text column the order of its bytes, as SQLite has it, whatever the locale of the server: lists sort alike on both,
 * and an index serves both the order and the comparison of a page.
 */
async function compareBytes(trx: Knex): Promise<void> {
  const { rows } = await trx.raw<{ rows: { table: string; column: string; type: string }[] }>(
    `select a.attrelid::regclass::text as table, a.attname as column, format_type(a.atttypid, a.atttypmod) as type
     from pg_attribute a join pg_class c on c.oid = a.attrelid
     where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace and a.attnum > 0 and not a.attisdropped
       and a.attcollation <> 0 and a.attcollation <> 'pg_catalog."C"'::regcollation
       and c.relname <> ?`,
    [TABLE],
  )
  for (const table of new Set(rows.map((row) => row.table))) {
    const changes = rows
      .filter((row) => row.table === table)
      .map(({ column, type }) => `alter column "${column}" type ${type} collate "C"`)
    await trx.raw(`alter table ${table} ${changes.join(', ')}`)
  }
}

async function checkReferences(trx: Knex): Promise<void> {
  const dangling: unknown[] = await trx.raw('pragma foreign_key_check')
  if (dangling.length > 0) throw new Error(`a migration left ${dangling.length} references that lead nowhere`)
}
