import { describe, expect, it } from 'vitest'
import * as attachments from '../../src/db/attachments.ts'
import * as backups from '../../src/db/backups.ts'
import type { Db } from '../../src/db/database.ts'
import type { Listing } from '../../src/db/listing.ts'
import * as snapshots from '../../src/db/snapshots.ts'
import * as volumeTypes from '../../src/db/volume-types.ts'
import * as volumes from '../../src/db/volumes.ts'
import * as work from '../../src/db/work.ts'
import { DIALECTS, type Dialect, openTestDatabase, TYPE_ID } from './harness.ts'

const VOLUMES = 100_000
const PROJECTS = 5
/** On a slow machine a statement must not take longer than it may. */
const VOLUMES_AT_ONCE = 10_000

/** Many rows in few statements; ids and times grow together, names repeat, some have none. */
async function fill(db: Db, dialect: Dialect): Promise<void> {
  const numbers =
    dialect === 'SQLite'
      ? 'with recursive numbers(n) as (select cast(? as integer) + 1 union all select n + 1 from numbers where n < ?) '
      : 'with numbers(n) as (select generate_series(?::integer + 1, ?::integer)) '
  const text = (n: string) => (dialect === 'SQLite' ? `printf('%06d', ${n})` : `lpad((${n})::text, 6, '0')`)
  const no = dialect === 'SQLite' ? '0' : 'false'
  for (let first = 0; first < VOLUMES; first += VOLUMES_AT_ONCE) {
    await db.raw(
      `insert into volumes (id, project_id, user_id, name, size_gib, status, availability_zone, volume_type_id, bootable, multiattach,
       metadata, created_at)
     ${numbers} select 'v' || ${text('n')}, 'p' || (n % ${PROJECTS}), 'u', case when n % 10 = 0 then null else 'name-' || ${text('n * 7919 % 50000')} end,
       1, case when n % 4 = 0 then 'error' else 'available' end, 'nova', '${TYPE_ID}', ${no}, ${no}, '{}',
       '2026-01-01T00:00:00.' || ${text('n')} from numbers`,
      [first, first + VOLUMES_AT_ONCE],
    )
  }
  await db.raw(
    `insert into snapshots (id, project_id, user_id, volume_id, name, size_gib, status, progress, metadata, created_at)
     select 's' || id, project_id, 'u', id, name, 1, status, '100%', '{}', created_at from volumes where id < 'v020000'`,
  )
  await db.raw(
    `insert into attachments (id, project_id, volume_id, instance_id, status, created_at)
     select 'a' || id, project_id, id, 'i' || id, 'attached', created_at from volumes where id < 'v020000'`,
  )
  await db.raw(
    `insert into backups (id, project_id, user_id, volume_id, name, size_gib, status, metadata, container, object_count, next_page,
       data_timestamp, created_at)
     select 'b' || id, project_id, 'u', id, name, 1, status, '{}', 'volumebackups', 0, 0, created_at, created_at
     from volumes where id < 'v020000'`,
  )
  await db.raw(
    `insert into work (id, kind, resource_id, lane, owner, params, next_step, attempt, due_at_ms, deadline_at_ms, created_at)
     select 'w' || id, 'volume-delete', id, id, 'o', '{}', 'delete-volume', 1, 0, 0, created_at from volumes where id < 'v020000'`,
  )
  await db.raw('analyze')
}

/** The plans of all that `run` asks. */
async function plansOf(db: Db, dialect: Dialect, run: () => Promise<unknown>): Promise<string[]> {
  const asked: { sql: string; bindings: readonly never[] }[] = []
  const listen = (query: { sql: string; bindings: readonly never[] }) => asked.push(query)
  db.on('query', listen)
  await run()
  db.removeListener('query', listen)
  const plans: string[] = []
  for (const { sql, bindings } of asked.filter((query) => query.sql.startsWith('select'))) {
    const statement = dialect === 'SQLite' ? `explain query plan ${sql}` : `explain ${sql.replace(/\$\d+/g, '?')}`
    const answer = await db.raw(statement, bindings)
    plans.push(
      dialect === 'SQLite'
        ? answer.map(({ detail }: { detail: string }) => detail).join('\n')
        : answer.rows.map((row: Record<string, string>) => row['QUERY PLAN']).join('\n'),
    )
  }
  return plans
}

const page: Listing = {
  projectId: 'p3',
  limit: 100,
  offset: 0,
  marker: null,
  sort: [{ key: 'created_at', direction: 'desc' }],
  filters: {},
}
/** Ids of volumes in the middle of their project: by time, and by name. */
const MIDDLE = 'v050008'
const MIDDLE_BY_NAME = 'v009058'
const by = (key: string, direction: 'asc' | 'desc') => ({ sort: [{ key, direction }] })
const LISTINGS: Readonly<Record<string, Partial<Listing>>> = {
  'the newest': {},
  'the oldest': by('created_at', 'asc'),
  'a page in the middle': { marker: MIDDLE },
  'by name': by('name', 'asc'),
  'by name, backwards': by('name', 'desc'),
  'by name, a page in the middle': { ...by('name', 'asc'), marker: MIDDLE_BY_NAME },
  'by name, backwards, a page in the middle': { ...by('name', 'desc'), marker: MIDDLE_BY_NAME },
  'by status': by('status', 'asc'),
  'of a status': { filters: { status: 'error' } },
  'of a status, a page in the middle': { filters: { status: 'available' }, marker: MIDDLE },
  'of a name': { filters: { name: 'name-000003' } },
}

/** Orders that only volumes have. */
const VOLUME_LISTINGS: typeof LISTINGS = {
  'by size': by('size', 'asc'),
  'by size, backwards, a page in the middle': { ...by('size', 'desc'), marker: MIDDLE },
  'by zone': by('availability_zone', 'asc'),
  'by what boots': by('bootable', 'desc'),
  'by host': by('host', 'asc'),
  'by host, backwards': by('host', 'desc'),
  'by host, a page in the middle': { ...by('host', 'asc'), marker: MIDDLE },
  'by change': by('updated_at', 'asc'),
  'by change, backwards': by('updated_at', 'desc'),
  'by change, backwards, a page in the middle': { ...by('updated_at', 'desc'), marker: MIDDLE },
  'by id': by('id', 'asc'),
  'by id, a page in the middle': { ...by('id', 'asc'), marker: MIDDLE },
}

const CHANGES: typeof LISTINGS = {
  'by change': by('updated_at', 'asc'),
  'by change, backwards, a page in the middle': { ...by('updated_at', 'desc'), marker: MIDDLE },
  'by volume': by('volume_id', 'desc'),
  'by volume, a page in the middle': { ...by('volume_id', 'asc'), marker: MIDDLE },
  'by id': by('id', 'asc'),
  'by id, a page in the middle': { ...by('id', 'asc'), marker: MIDDLE },
}
const SNAPSHOT_LISTINGS: typeof LISTINGS = {
  ...CHANGES,
  'by size': by('volume_size', 'asc'),
  'by progress': by('progress', 'desc'),
}
const ATTACHMENT_LISTINGS: typeof LISTINGS = {
  ...CHANGES,
  'the newest': {},
  'the oldest': by('created_at', 'asc'),
  'a page in the middle': { marker: MIDDLE },
}
const BACKUP_LISTINGS: typeof LISTINGS = {
  ...CHANGES,
  'by size': by('size', 'desc'),
  'by container': by('container', 'asc'),
  'by age of the data': by('data_timestamp', 'asc'),
}

/** Of the resources that a volume has one each of: its id with that in front. */
const PREFIXES: Readonly<Record<string, string>> = { volumes: '', snapshots: 's', attachments: 'a', backups: 'b' }

/** Few volumes have such, and those are before what is their middle. */
function markerIn(resource: string, marker: string | null = null): string | null {
  if (marker === null) return null
  return `${PREFIXES[resource]}${resource !== 'volumes' && marker === MIDDLE ? 'v010008' : marker}`
}

describe.each(DIALECTS)('lists of many rows on %s', (dialect) => {
  it('are read from an index in their order, without sorting and without reading what they leave out', async () => {
    const { db } = await openTestDatabase(dialect)
    await fill(db, dialect)
    const lists = [
      { resource: 'volumes', list: volumes.list, listings: { ...LISTINGS, ...VOLUME_LISTINGS } },
      { resource: 'snapshots', list: snapshots.list, listings: { ...LISTINGS, ...SNAPSHOT_LISTINGS } },
      { resource: 'attachments', list: attachments.list, listings: ATTACHMENT_LISTINGS },
      { resource: 'backups', list: backups.list, listings: { ...LISTINGS, ...BACKUP_LISTINGS } },
    ]
    for (const { resource, list, listings } of lists) {
      for (const [name, changes] of Object.entries(listings)) {
        for (const projectId of ['p3', null]) {
          const marker = markerIn(resource, changes.marker)
          const plans = await plansOf(db, dialect, () =>
            list(db, { ...page, ...changes, projectId, marker }, { count: false }),
          )
          const about = `${resource}, ${name}, of ${projectId ?? 'all'}:\n${plans.join('\n')}`
          for (const plan of plans) {
            if (name === 'of a name')
              expect(plan, about).toMatch(/index/i) // few rows, which may be sorted
            else expect(plan, about).not.toMatch(/TEMP B-TREE|\bSort\b(?! Key| Method)|Incremental/)
            expect(plan, about).not.toMatch(new RegExp(`SCAN ${resource}$|Seq Scan on ${resource}`, 'm'))
          }
        }
      }
    }
    const single: Readonly<Record<string, () => Promise<unknown>>> = {
      'a volume': () => volumes.find(db, 'v000007'),
      'snapshots of a volume': () => snapshots.ofVolume(db, 'v000007'),
      'attachments of volumes': () =>
        attachments.ofVolumes(
          db,
          Array.from({ length: 50 }, (_, n) => `v0000${10 + n}`),
        ),
      'attachments of a project': () => attachments.list(db, page, { count: false }),
      'attachments of an instance': () =>
        attachments.list(db, { ...page, filters: { instance_id: 'iv000003' } }, { count: false }),
      'work of a resource': () => work.findByResource(db, 'v000007'),
      'work on a volume': () => work.ofVolume(db, 'v000007'),
      'whether others wait for a lane': () => work.freeLane(db, { id: 'w', owner: 'o', lane: 'v000007' }),
      'whether a volume has a type, or is to get it': () => volumeTypes.isInUse(db, 'no type'),
    }
    for (const [name, ask] of Object.entries(single)) {
      for (const plan of await plansOf(db, dialect, ask)) {
        expect(plan, name).not.toMatch(
          /SCAN (volumes|snapshots|attachments|work)$|Seq Scan on (volumes|snapshots|attachments|work)/m,
        )
      }
    }
  }, 180_000)
})
