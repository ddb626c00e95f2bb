import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { connectPostgres, connectSqlite } from '../../src/db/connections.ts'
import { type DatabaseOptions, openDatabase } from '../../src/db/database.ts'
import { MIGRATIONS } from '../../src/db/migrations.ts'
import * as volumes from '../../src/db/volumes.ts'
import { createHarness, everything, keptUsage, member, outcome, recount } from '../services/harness.ts'
import { DIALECTS, newDatabase } from './harness.ts'

/** What the first version left behind: see scripts/database-dump.ts. */
async function databaseOfVersion1(location: DatabaseOptions): Promise<void> {
  const kind = 'url' in location ? 'postgres' : 'sqlite'
  const dump = readFileSync(path.join(import.meta.dirname, `fixtures/version-0001.${kind}.sql`), 'utf8')
  const db = 'url' in location ? connectPostgres(location.url, { connectionsMax: 1 }) : connectSqlite(location.file)
  if ('url' in location) await db.raw(dump)
  else for (const statement of dump.split(';\n').filter((line) => line.trim() !== '')) await db.raw(statement)
  await db.destroy()
}

const names = MIGRATIONS.map(({ name }) => name)

describe.each(DIALECTS)('a schema on %s', (dialect) => {
  it('is brought up to date from the first version with all that is in it', async () => {
    const location = await newDatabase(dialect, { migrated: false })
    await databaseOfVersion1(location)
    const { db, services, settled } = await createHarness({ location })
    expect(await db('knex_migrations').orderBy('id').pluck('name')).toEqual(names)
    expect((await db('installation').first()).id).toMatch(/^[0-9a-f-]{32,36}$/)
    await settled()
    const { items } = await services.volumes.list(member, everything, { count: false })
    expect(items.map(({ id, name, status }) => [id, name, status])).toEqual([
      ['volume-3', 'a', 'error'], // its work went on: there is no such source in the backend
      ['volume-2', null, 'in-use'],
      ['volume-1', 'Zoë', 'available'],
    ])
    expect(items[1]).toMatchObject({
      bootable: true,
      sizeGib: 3,
      attachments: [{ id: 'attachment-1', status: 'attached' }],
    })
    expect(items[2]).toMatchObject({ bootable: false, metadata: { k: 'v' }, volumeTypeName: '__DEFAULT__' })
    expect(await keptUsage(db)).toEqual(await recount(db))
    // What the first version checked is still checked.
    await expect(db('volumes').where({ id: 'volume-1' }).delete()).rejects.toThrow(/foreign key/i)
    await expect(db('usages').update({ volumes: -1 })).rejects.toThrow(/check/i)
  })

  it('is the same whether it was brought up to date or made anew', async () => {
    const [old, made] = [
      await newDatabase(dialect, { migrated: false }),
      await newDatabase(dialect, { migrated: false }),
    ]
    await databaseOfVersion1(old)
    const schemas = await Promise.all(
      [old, made].map(async (location) => {
        const db = await openDatabase(location)
        const columns =
          dialect === 'SQLite'
            ? await db.raw(
                `select m.name as "table", c.name, c.type, c."notnull" from sqlite_master m, pragma_table_info(m.name) c
                 where m.type = 'table' and m.name not like 'sqlite_%' order by 1, 2`,
              )
            : (
                await db.raw(
                  `select table_name, column_name, data_type, is_nullable, collation_name from information_schema.columns
                   where table_schema = 'public' and table_name not like 'knex%' order by 1, 2`,
                )
              ).rows
        const indices =
          dialect === 'SQLite'
            ? await db('sqlite_master').where({ type: 'index' }).orderBy('name').pluck('name')
            : await db('pg_indexes')
                .where({ schemaname: 'public' })
                .whereNot('indexname', 'like', 'knex%')
                .orderBy('indexname')
                .pluck('indexdef')
        await db.destroy()
        return { columns: columns.filter(({ table }: { table?: string }) => !table?.startsWith('knex')), indices }
      }),
    )
    expect(schemas[0]).toEqual(schemas[1])
  })

  it('is brought up to date once when processes start together', async () => {
    const location = await newDatabase(dialect, { migrated: false })
    await databaseOfVersion1(location)
    const script = path.join(import.meta.dirname, 'open-database.ts')
    const processes = await Promise.all(
      Array.from({ length: 3 }, async () => {
        const child = spawn(process.execPath, ['--import', 'tsx', script, JSON.stringify(location)], {
          stdio: ['ignore', 'pipe', 'pipe'],
        })
        const [out, err] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
        return { code: child.exitCode, out, err }
      }),
    )
    for (const { code, out, err } of processes) {
      expect([code, err]).toEqual([0, ''])
      expect(JSON.parse(out)).toEqual(names)
    }
  })

  it('is left as it was when a migration fails', async () => {
    const location = await newDatabase(dialect, { migrated: false })
    await databaseOfVersion1(location)
    const { migrate } = await import('../../src/db/migrations.ts')
    const db = 'url' in location ? connectPostgres(location.url) : connectSqlite(location.file)
    const failing = {
      name: '9998-fails',
      up: async (trx: typeof db) => {
        await trx('volumes').where({ id: 'volume-1' }).update({ name: 'other' })
        throw new Error('no room')
      },
    }
    await expect(migrate(db, [...MIGRATIONS, failing])).rejects.toThrow('no room')
    expect(await db('knex_migrations').pluck('name')).toEqual(names.slice(0, 1))
    expect(await db.schema.hasTable('lanes')).toBe(false)
    expect(await db('volumes').pluck('id')).toContain('volume-1')
    await migrate(db)
    expect((await volumes.find(db, 'volume-1'))?.name).toBe('Zoë')
    await db.destroy()
  })

  it('of a newer version is refused with what to do', async () => {
    const location = await newDatabase(dialect)
    const db = await openDatabase(location)
    await db('knex_migrations').insert({ name: '9999-from-the-future', batch: 1 })
    await db.destroy()
    await expect(openDatabase(location)).rejects.toMatchObject({
      name: 'StartRefused',
      message: expect.stringMatching(/newer version of collie \(9999-from-the-future\); run that version/),
    })
  })

  it('is not touched when it cannot be reached', async () => {
    const away = dialect === 'SQLite' ? { file: '/nowhere/at/all.db' } : { url: 'postgres://u:hidden@127.0.0.1:9/name' }
    const opening = outcome(openDatabase(away).then((db) => db.destroy()))
    if (dialect === 'SQLite') await expect(opening).rejects.toThrow(/directory does not exist/)
    else expect(await opening).toBe('ServiceUnavailable')
  })
})
