import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  adminOnly,
  at,
  before,
  minorOf,
  openApiMark,
  parseVersionHeader,
  refuseSince,
  since,
  strictSince,
  until,
  type Version,
} from '../../src/api/microversion.ts'
import { ServiceError } from '../../src/errors.ts'

const Sample = z.object({
  id: z.string(),
  old: until('3.5', z.string()),
  group_id: since('3.13', z.string().nullable()),
  provider_id: since('3.21', adminOnly(z.string())),
  shared: since(
    '3.48',
    before('3.69', (value) => value ?? true, z.boolean().nullable()),
  ),
  inner: z.array(z.object({ late: since('3.30', z.int()), always: z.int() })).optional(),
})

const FULL = {
  id: 'a',
  old: 'o',
  group_id: null,
  provider_id: 'p',
  shared: null,
  inner: [{ late: 1, always: 2 }],
}

const seen = (minor: number, admin: boolean) => at(Sample, { minor, admin }).parse(FULL) as Record<string, unknown>

describe('at', () => {
  test.each([
    [0, false, ['id', 'inner', 'old']],
    [5, true, ['id', 'inner', 'old']],
    [6, true, ['id', 'inner']],
    [13, false, ['group_id', 'id', 'inner']],
    [21, false, ['group_id', 'id', 'inner']],
    [21, true, ['group_id', 'id', 'inner', 'provider_id']],
    [71, false, ['group_id', 'id', 'inner', 'shared']],
  ])('3.%i (admin: %s) sees %j', (minor, admin, keys) => {
    expect(Object.keys(seen(minor, admin)).sort()).toEqual(keys)
  })

  test('marks work at any depth', () => {
    expect(seen(29, false).inner).toEqual([{ always: 2 }])
    expect(seen(30, false).inner).toEqual([{ late: 1, always: 2 }])
  })

  test('a value that was written differently before is converted for old clients only', () => {
    expect(seen(68, false).shared).toBe(true)
    expect(seen(69, false).shared).toBe(null)
  })

  test('each field is there exactly in its range, for every version', () => {
    const ranged = fc.record({ first: fc.nat(71), last: fc.nat(71), minor: fc.nat(71) })
    fc.assert(
      fc.property(ranged, ({ first, last, minor }) => {
        const schema = z.object({ field: since(`3.${first}`, until(`3.${last}`, z.int())) })
        const answer = at(schema, { minor, admin: false }).parse({ field: 1 })
        expect('field' in answer).toBe(minor >= first && minor <= last)
      }),
    )
  })

  test('a schema without marks is used as it is, and variants are shared between versions that look the same', () => {
    const plain = z.object({ id: z.string() })
    expect(at(plain, { minor: 3, admin: true })).toBe(plain)
    expect(at(Sample, { minor: 49, admin: false })).toBe(at(Sample, { minor: 68, admin: false }))
    expect(at(Sample, { minor: 49, admin: false })).not.toBe(at(Sample, { minor: 49, admin: true }))
  })

  test('marking does not change the schema that was marked', () => {
    const shared = z.string()
    since('3.9', shared)
    expect(at(z.object({ shared }), { minor: 0, admin: false }).parse({ shared: 'x' })).toEqual({ shared: 'x' })
  })
})

describe('bodies', () => {
  const Body = strictSince('3.53', z.object({ size: z.int(), group_id: since('3.13', z.string().optional()) }))

  test('unknown keys, and keys from the future, are dropped before strictSince and refused after', () => {
    expect(at(Body, { minor: 12, admin: false }).parse({ size: 1, group_id: 'g', x: 1 })).toEqual({ size: 1 })
    expect(at(Body, { minor: 52, admin: true }).parse({ size: 1, group_id: 'g', x: 1 })).toEqual({
      size: 1,
      group_id: 'g',
    })
    expect(at(Body, { minor: 53, admin: true }).safeParse({ size: 1, x: 1 }).success).toBe(false)
  })

  test('refuseSince refuses from its version on, and keeps refinements of the schema itself', () => {
    const schema = refuseSince(
      '3.53',
      (value) => Object.keys(value).length > 0,
      { error: 'is empty' },
      z.object({ a: since('3.2', z.int().optional()) }).refine((value) => value.a !== 7, 'is seven'),
    )
    expect(at(schema, { minor: 52, admin: false }).safeParse({}).success).toBe(true)
    expect(at(schema, { minor: 53, admin: false }).safeParse({}).error?.issues[0]?.message).toBe('is empty')
    expect(at(schema, { minor: 10, admin: false }).safeParse({ a: 7 }).error?.issues[0]?.message).toBe('is seven')
  })

  test('before() fills in for a client that could not say it', () => {
    const schema = z.object({ force: before('3.66', (value) => value ?? false, z.boolean().optional().default(true)) })
    expect(at(schema, { minor: 65, admin: false }).parse({})).toEqual({ force: false })
    expect(at(schema, { minor: 65, admin: false }).parse({ force: true })).toEqual({ force: true })
    expect(at(schema, { minor: 66, admin: false }).parse({})).toEqual({ force: true })
  })
})

describe('parseVersionHeader', () => {
  test.each([
    [undefined, 0],
    ['volume 3.0', 0],
    ['volume 3.71', 71],
    ['volume latest', 71],
    ['compute 2.90, volume 3.27', 27],
    [' volume  3.5 ', 5],
  ])('%j is 3.%i', (header, minor) => {
    expect(parseVersionHeader(header)).toBe(minor)
  })

  test.each([
    ['compute 2.90', 'InvalidInput'],
    ['', 'InvalidInput'],
    ['volume 3.72', 'VersionNotAcceptable'],
    ['volume 2.0', 'VersionNotAcceptable'],
    ['volume 4.1', 'VersionNotAcceptable'],
    ['volume 3', 'InvalidVersionHeader'],
    ['volume', 'InvalidVersionHeader'],
    ['volume 3.01', 'InvalidVersionHeader'],
    ['volume 3.x', 'InvalidVersionHeader'],
    ['volume 3.1 3.2', 'InvalidVersionHeader'],
  ])('%j is refused as %s', (header, code) => {
    expect(() => parseVersionHeader(header)).toThrow(expect.objectContaining({ code }))
  })

  test('any text is a version or a refusal, never another failure', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `volume ${text}`),
        ),
        (header) => {
          try {
            expect(parseVersionHeader(header)).toBeLessThanOrEqual(71)
          } catch (error) {
            expect(error).toBeInstanceOf(ServiceError)
          }
        },
      ),
    )
  })
})

test('the same marks are shown in the OpenAPI document', () => {
  expect(openApiMark(since('3.21', adminOnly(z.string())))).toEqual({ 'min-ver': '3.21', 'admin-only': true })
  expect(openApiMark(z.string())).toBeUndefined()
  expect(minorOf('3.27' satisfies Version)).toBe(27)
})
