import { describe, expect, it } from 'vitest'
import * as hostUsage from '../../src/db/host-usage.ts'
import type { Listing } from '../../src/db/listing.ts'
import * as volumeTypes from '../../src/db/volume-types.ts'
import * as volumes from '../../src/db/volumes.ts'
import { DIALECTS, openTestDatabase, volumeRow } from './harness.ts'

const listing: Listing = {
  projectId: null,
  limit: 10,
  offset: 0,
  marker: null,
  sort: [{ key: 'created_at', direction: 'asc' }],
  filters: {},
}

describe.each(DIALECTS)('a part of a text on %s', (dialect) => {
  it('is that of a backend whose name is spelt so, whatever its characters mean in a pattern', async () => {
    const { db } = await openTestDatabase(dialect)
    const hosts = ['host@fast#pool', 'host@Fast#pool', 'host@f_st#pool', 'host@very-fast#pool']
    for (const [index, host] of hosts.entries()) {
      await volumes.insert(db, volumeRow({ id: `v${index}`, host, size_gib: 2 ** index }))
    }
    const sizeOf = async (backend: string) => (await hostUsage.byProject(db, backend))[0]?.volumesGib
    expect(await Promise.all(['fast', 'Fast', 'f_st', 'very-fast', 'f%'].map(sizeOf))).toEqual([1, 2, 4, 8, undefined])
  })

  it('is that of a zone that a type names', async () => {
    const { db } = await openTestDatabase(dialect)
    const [type] = await db('volume_types')
    const specs = (zones: string) => JSON.stringify({ [volumeTypes.ZONES_SPEC]: zones })
    await db('volume_types').insert({ ...type, id: 'one', name: 'one', extra_specs: specs('east,west') })
    await db('volume_types').insert({ ...type, id: 'two', name: 'two', extra_specs: specs('East,50%') })
    const idsOf = async (zone: string) => {
      const filters = { extra_specs: { [volumeTypes.ZONES_SPEC]: zone } }
      return (await volumeTypes.list(db, { ...listing, filters }, { kind: 'all' })).rows.map(({ id }) => id)
    }
    expect(await Promise.all(['east', 'East', 'st', '%', '_'].map(idsOf))).toEqual([
      ['one'],
      ['two'],
      ['one', 'two'],
      ['two'],
      [],
    ])
  })

  it('says nothing of private types that somebody cannot see, as a marker either', async () => {
    const { db } = await openTestDatabase(dialect)
    const [type] = await db('volume_types')
    await db('volume_types').insert({ ...type, id: 'secret', name: 'secret', is_public: false })
    const page = { ...listing, marker: 'secret' }
    await expect(volumeTypes.list(db, page, { kind: 'open', projectId: 'p' })).rejects.toThrow(
      'secret could not be found',
    )
    expect((await volumeTypes.list(db, page, { kind: 'all' })).rows).toHaveLength(0)
  })
})
