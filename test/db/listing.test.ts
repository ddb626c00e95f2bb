import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Db } from '../../src/db/database.ts'
import { type Listing, type SortKey, withTieBreakers } from '../../src/db/listing.ts'
import { list, summarize, VOLUME_COLUMNS, type VolumeRow } from '../../src/db/volumes.ts'
import { outcome } from '../services/harness.ts'
import { DIALECTS, openTestDatabase, volumeRow } from './harness.ts'

const SORT_KEYS = ['created_at', 'name', 'size', 'status', 'updated_at', 'bootable', 'id']

const anyTime = fc.constantFrom(
  '2026-01-01T00:00:00.000000',
  '2026-01-01T00:00:00.000001',
  '2026-01-02T00:00:00.000000',
)

const anyRow = fc.record({
  project_id: fc.constantFrom('p1', 'p2'),
  name: fc.constantFrom(null, 'a', 'b%', 'B_', 'abc', '\\', 'Z', '-a', 'é', 'e'),
  size_gib: fc.integer({ min: 1, max: 3 }),
  status: fc.constantFrom('available', 'error'),
  bootable: fc.boolean(),
  metadata: fc.dictionary(fc.constantFrom('k', 'k"', '$.k', 'a.b'), fc.constantFrom('v', '"', 'x,"k":"v"'), {
    maxKeys: 3,
  }),
  created_at: anyTime,
  updated_at: fc.option(anyTime),
})

const anyFilters = fc.record(
  {
    name: fc.constantFrom('a', 'b%', 'abc'),
    'name~': fc.constantFrom('B', '%', '_', '\\', ''),
    status: fc.constantFrom('available', 'error'),
    size: fc.integer({ min: 1, max: 3 }),
    bootable: fc.boolean(),
    metadata: fc.dictionary(fc.constantFrom('k', 'k"', '$.k'), fc.constantFrom('v', '"'), { maxKeys: 2 }),
    created_at: fc.record({ gte: anyTime, lt: anyTime }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
)

const anySort = fc
  .uniqueArray(fc.constantFrom(...SORT_KEYS), { minLength: 1, maxLength: 3 })
  .chain((keys) =>
    fc.tuple(...keys.map((key) => fc.record({ key: fc.constant(key), direction: fc.constantFrom('asc', 'desc') }))),
  ) as fc.Arbitrary<SortKey[]>

/** What the filters mean, the slow way. */
function matches(row: VolumeRow, filters: Record<string, unknown>): boolean {
  return Object.entries(filters).every(([key, wanted]) => {
    if (key === 'name~') return row.name?.toLowerCase().includes(String(wanted).toLowerCase()) ?? false
    if (key === 'metadata') {
      const metadata = JSON.parse(row.metadata)
      return Object.entries(wanted as object).every(
        ([name, value]) => Object.hasOwn(metadata, name) && metadata[name] === value,
      )
    }
    if (key === 'created_at') {
      const { gte = '', lt = '9' } = wanted as { gte?: string; lt?: string }
      return row.created_at >= gte && row.created_at < lt
    }
    return row[VOLUME_COLUMNS[key]!.name as keyof VolumeRow] === wanted
  })
}

function compare(sort: readonly SortKey[]): (a: VolumeRow, b: VolumeRow) => number {
  return (a, b) => {
    for (const { key, direction } of withTieBreakers(sort)) {
      const name = VOLUME_COLUMNS[key]!.name as keyof VolumeRow
      const [x, y] = [a[name], b[name]]
      if (x === y) continue
      const order = x === null ? -1 : y === null ? 1 : x < y ? -1 : 1
      return direction === 'asc' ? order : -order
    }
    return 0
  }
}

async function fill(db: Db, rows: readonly Partial<VolumeRow>[]): Promise<VolumeRow[]> {
  await db('volumes').delete()
  const full = rows.map((row, index) => volumeRow({ ...row, id: `volume-${index}` }))
  if (full.length > 0) await db('volumes').insert(full)
  return full
}

const firstPage: Listing = {
  projectId: 'p1',
  limit: 10,
  offset: 0,
  marker: null,
  sort: [{ key: 'created_at', direction: 'desc' }],
  filters: {},
}

describe.each(DIALECTS)('a list of volumes on %s', (dialect) => {
  it('shows, page by page, what filtering and sorting all rows shows', async () => {
    const { db } = await openTestDatabase(dialect)
    const rowSets = fc.array(
      anyRow.map((row) => ({ ...row, metadata: JSON.stringify(row.metadata) })),
      { maxLength: 14 },
    )
    await fc.assert(
      fc.asyncProperty(
        rowSets,
        anyFilters,
        anySort,
        fc.constantFrom('p1', null),
        fc.integer({ min: 1, max: 5 }),
        async (rowSet, filters, sort, projectId, limit) => {
          const rows = await fill(db, rowSet)
          const expected = rows
            .filter((row) => (projectId === null || row.project_id === projectId) && matches(row, filters))
            .sort(compare(sort))
            .map(({ id }) => id)
          const listing = { ...firstPage, projectId, sort, limit, filters: filters as Listing['filters'] }
          const seen: string[] = []
          for (let marker: string | null = null; ; ) {
            const page = await list(db, { ...listing, marker }, { count: true })
            expect(page.total).toBe(expected.length)
            seen.push(...page.rows.map(({ id }) => id))
            expect(page.more).toBe(seen.length < expected.length)
            if (!page.more) break
            marker = seen.at(-1)!
          }
          expect(seen).toEqual(expected)
          const offset = Math.floor(expected.length / 2)
          const rest = await list(db, { ...listing, limit: 1000, offset }, { count: false })
          expect(rest.rows.map(({ id }) => id)).toEqual(expected.slice(offset))
          const sums = await summarize(db, listing)
          expect(sums.count).toBe(expected.length)
          expect(sums.sizeGib).toBe(
            rows.filter(({ id }) => expected.includes(id)).reduce((sum, row) => sum + row.size_gib, 0),
          )
        },
      ),
      { numRuns: dialect === 'SQLite' ? 150 : 60 },
    )
  })

  it('refuses a marker of another project, and keys it does not know', async () => {
    const { db } = await openTestDatabase(dialect)
    await fill(db, [{ project_id: 'p1' }, { project_id: 'p2' }])
    const ask = (changes: Partial<Listing>) => outcome(list(db, { ...firstPage, ...changes }, { count: false }))
    expect(await ask({ marker: 'volume-1' })).toBe('VolumeNotFound')
    expect(await ask({ marker: 'volume-1', projectId: null })).toBe('done')
    expect(await ask({ filters: { constructor: 'x' } })).toBe('InvalidInput')
    expect(await ask({ filters: { created_at: { near: 'x' } } })).toBe('InvalidInput')
    expect(await ask({ sort: [{ key: 'status; --', direction: 'asc' }] })).toBe('InvalidInput')
  })

  it('is empty and has no next page at a limit of zero', async () => {
    const { db } = await openTestDatabase(dialect)
    await fill(db, [{ project_id: 'p1' }])
    expect(await list(db, { ...firstPage, limit: 0 }, { count: true })).toEqual({ rows: [], more: false, total: 1 })
  })
})
