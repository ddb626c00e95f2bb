import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  booleanFilter,
  metadataFilter,
  numberFilter,
  parseDictionary,
  textFilter,
  timeFilter,
} from '../../src/api/filters.ts'
import { adminOnly, at, since } from '../../src/api/microversion.ts'
import { listing, nextLinks, toListRequest } from '../../src/api/paging.ts'

const LIST = listing({
  filters: {
    name: textFilter,
    'name~': since('3.34', textFilter),
    size: numberFilter,
    bootable: booleanFilter('bootable'),
    status: textFilter,
    metadata: metadataFilter,
    created_at: since('3.60', timeFilter),
    group_id: since('3.10', textFilter),
    host: adminOnly(textFilter),
    project_id: adminOnly(textFilter),
  },
  sortKeys: ['created_at', 'name'],
  constants: { group_id: 'none' },
  nullable: ['host'],
})

function ask(query: Record<string, string>, { minor = 71, admin = false } = {}) {
  return toListRequest(LIST, at(LIST.query, { minor, admin }).parse(query), { minor, admin })
}

const refuses = (query: Record<string, string>, options?: { minor?: number; admin?: boolean }) =>
  expect(() => ask(query, options))

describe('page', () => {
  test('defaults: newest first, 1000 rows', () => {
    expect(ask({})).toEqual({
      query: {
        limit: 1000,
        offset: 0,
        marker: null,
        sort: [{ key: 'created_at', direction: 'desc' }],
        filters: {},
        allProjects: false,
      },
      count: false,
      nothing: false,
    })
  })

  test('a limit above 1000 is 1000', () => {
    expect(ask({ limit: '5000' }).query.limit).toBe(1000)
    expect(ask({ limit: '0' }).query.limit).toBe(0)
  })

  test('numbers that are none are refused with a reason', () => {
    refuses({ limit: '-1' }).toThrow('limit param must be positive')
    refuses({ limit: 'x' }).toThrow('limit param must be an integer')
    refuses({ offset: '99999999999999999999' }).toThrow('offset must be <= 2147483647')
  })

  test('all_tenants counts for administrators only', () => {
    expect(ask({ all_tenants: '1' }, { admin: true }).query.allProjects).toBe(true)
    expect(ask({ all_tenants: '0' }, { admin: true }).query.allProjects).toBe(false)
    expect(ask({ all_tenants: '1' }).query.allProjects).toBe(false)
  })

  test('with_count is known from 3.45 on', () => {
    expect(ask({ with_count: 'True' }, { minor: 45 }).count).toBe(true)
    expect(ask({ with_count: 'True' }, { minor: 30 }).count).toBe(false)
  })
})

describe('sort', () => {
  test('keys and directions', () => {
    expect(ask({ sort: 'name:asc, created_at' }).query.sort).toEqual([
      { key: 'name', direction: 'asc' },
      { key: 'created_at', direction: 'desc' },
    ])
    expect(ask({ sort_key: 'name', sort_dir: 'asc' }).query.sort).toEqual([{ key: 'name', direction: 'asc' }])
  })

  test('nonsense is refused', () => {
    refuses({ sort: 'password' }).toThrow('Invalid input received: Invalid sort key')
    refuses({ sort: 'name:up' }).toThrow('Unknown sort direction')
    refuses({ sort: 'name', sort_key: 'name' }).toThrow('deprecated')
  })
})

describe('filters', () => {
  test('an unknown one is dropped before 3.31, refused from then on, and finds nothing for an administrator', () => {
    expect(ask({ color: 'red' }, { minor: 30 }).query.filters).toEqual({})
    refuses({ color: 'red' }, { minor: 31 }).toThrow('color')
    expect(ask({ color: 'red' }, { minor: 31, admin: true }).nothing).toBe(true)
  })

  test("an administrator's filter is unknown to others", () => {
    expect(ask({ host: 'h' }, { admin: true }).query.filters).toEqual({ host: 'h' })
    expect(ask({ host: 'h' }, { minor: 3 }).query.filters).toEqual({})
    refuses({ host: 'h' }).toThrow()
  })

  test('one from the future is treated as unknown', () => {
    expect(ask({ 'name~': 'x' }, { minor: 30 }).query.filters).toEqual({})
    expect(ask({ 'name~': 'x' }, { minor: 34 }).query.filters).toEqual({ 'name~': 'x' })
  })

  test("administrators' projects count only together with all_tenants, which has to mean something", () => {
    expect(ask({ project_id: 'p' }, { admin: true }).query).toMatchObject({ allProjects: false, filters: {} })
    const all = ask({ project_id: 'p', all_tenants: 'True' }, { admin: true }).query
    expect(all).toMatchObject({ allProjects: true, filters: { project_id: 'p' } })
    refuses({ all_tenants: 'maybe' }, { admin: true }).toThrow("Value 'maybe' for 'all_tenants' is not a boolean.")
    expect(ask({ all_tenants: 'maybe' }).query.allProjects).toBe(false)
  })

  test('a count that came later is to an administrator an attribute that no row has', () => {
    expect(ask({ with_count: 'true' }, { minor: 44, admin: true })).toMatchObject({ count: false, nothing: true })
    expect(ask({ with_count: 'true' }, { minor: 45, admin: true })).toMatchObject({ count: true, nothing: false })
    expect(ask({ with_count: 'true' }, { minor: 30 })).toMatchObject({ count: false, nothing: false })
    refuses({ with_count: 'true' }, { minor: 44 }).toThrow('with_count')
  })

  test('one for an attribute that is the same everywhere needs no database', () => {
    expect(ask({ group_id: 'None' }).nothing).toBe(false)
    expect(ask({ group_id: 'g' })).toMatchObject({ nothing: true, query: { filters: {} } })
  })

  test('values have types', () => {
    expect(ask({ size: '10', bootable: 'false' }).query.filters).toEqual({ size: 10, bootable: false })
    expect(ask({ bootable: 'maybe' }, { minor: 1 }).query.filters).toEqual({ bootable: true })
    refuses({ bootable: 'maybe' }, { minor: 2 }).toThrow("'bootable = maybe'")
    expect(ask({ host: 'None', status: 'None' }, { admin: true }).query.filters).toEqual({ host: null, status: 'None' })
    expect(ask({ size: 'big' })).toMatchObject({ nothing: true, query: { filters: {} } })
  })

  test('times compare in the form in which they are kept', () => {
    expect(ask({ created_at: 'gte:2024-01-31T10:00:00Z,lt:2024-02-29' }).query.filters).toEqual({
      created_at: { gte: '2024-01-31T10:00:00.000000', lt: '2024-02-29T00:00:00.000000' },
    })
    expect(ask({ created_at: 'gt:2024-01-31T01:30:00.5+02:00' }).query.filters).toEqual({
      created_at: { gt: '2024-01-30T23:30:00.500000' },
    })
    refuses({ created_at: '2024-01-31' }).toThrow('Invalid 2024-01-31 operator')
    refuses({ created_at: 'gt:yesterday' }).toThrow('Invalid yesterday value')
    refuses({ created_at: 'gt:2024-13-01' }).toThrow('Invalid 2024-13-01 value')
  })

  test('a dictionary of strings reads back as Python and JSON print it', () => {
    expect(ask({ metadata: `{'a': "it's", u"b" : 'x\\'y',}` }).query.filters).toEqual({
      metadata: { a: "it's", b: "x'y" },
    })
    expect(ask({ metadata: '[1]' })).toMatchObject({ nothing: true, query: { filters: {} } })
    const plain = fc.stringMatching(/^[ -~]*$/)
    fc.assert(
      fc.property(fc.dictionary(plain, plain), (pairs) => {
        expect(parseDictionary(JSON.stringify(pairs))).toEqual({ ...pairs })
      }),
    )
  })
})

test('a full page has a next link, a short or empty one has none', () => {
  const links = { self: String, bookmark: String, next: (path: string, marker: string) => `${path}?marker=${marker}` }
  const request = ask({ limit: '2' })
  const page = (...ids: string[]) => ({ items: ids.map((id) => ({ id })), more: false })
  expect(nextLinks(page('a', 'b'), request, links, '/x')).toEqual([{ rel: 'next', href: '/x?marker=b' }])
  expect(nextLinks(page('a'), request, links, '/x')).toBeUndefined()
  expect(nextLinks(page(), ask({ limit: '0' }), links, '/x')).toBeUndefined()
})
