import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { optionalFlag, optionalGuid, sizeGib, text, volumeName } from '../../src/api/fields.ts'
import { parseJson } from '../../src/api/json.ts'
import { check, repr, unknownProperties } from '../../src/api/validation.ts'
import { createHarness, type Harness, PROJECT } from './harness.ts'

/** The sentences are those of upstream's validator, taken from its answers to the same requests. */

const Body = z.strictObject({
  volume: z.strictObject({
    size: sizeGib.nullish(),
    name: volumeName.optional(),
    mode: z.enum(['rw', 'ro'], { error: "is not one of ['rw', 'ro']" }).optional(),
    key: text(5).min(1).optional(),
    multiattach: optionalFlag,
    source_volid: optionalGuid,
  }),
})

const WORDS = { root: null, unknown: unknownProperties }
const field = (name: string, rest: string) => `Invalid input for field/attribute ${name}. Value: ${rest}`

describe('a body', () => {
  test.each([
    [{}, "'volume' is a required property"],
    [[], "[] is not of type 'object'"],
    [null, "None is not of type 'object'"],
    [{ volume: null }, field('volume', "None. None is not of type 'object'")],
    [{ volume: {}, x: 1, a: 1 }, "Additional properties are not allowed ('a', 'x' were unexpected)"],
    [{ volume: { x: 1 } }, field('volume', "{'x': 1}. Additional properties are not allowed ('x' was unexpected)")],
    [{ volume: { size: 'big' } }, field('size', "big. 'big' does not match '^[0-9]+$'")],
    [{ volume: { size: 1.5 } }, field('size', "1.5. 1.5 is not of type 'integer', 'string', 'null'")],
    [parseJson('{"volume": {"size": 2.0}}'), field('size', "2.0. 2.0 is not of type 'integer', 'string', 'null'")],
    [{ volume: { size: '0' } }, field('size', '0. 0 is less than the minimum of 1')],
    [{ volume: { size: 1e30 } }, field('size', '1e+30. 1e+30 is greater than the maximum of 2147483647')],
    [
      { volume: { size: 2_147_483_648 } },
      field('size', '2147483648. 2147483648 is greater than the maximum of 2147483647'),
    ],
    [{ volume: { mode: 'wo' } }, field('mode', "wo. 'wo' is not one of ['rw', 'ro']")],
    [{ volume: { key: 'longer' } }, field('key', "longer. 'longer' is too long")],
    [{ volume: { key: '' } }, field('key', ". '' should be non-empty")],
    [{ volume: { key: true } }, field('key', "True. True is not of type 'string'")],
    [{ volume: { name: 7 } }, field('name', "7. 7 is not of type 'string', 'null'")],
    [{ volume: { name: 'n'.repeat(256) } }, 'Invalid input received: name has 256 characters, more than 255.'],
    [{ volume: { multiattach: 1 } }, field('multiattach', '1. 1 is not valid under any of the given schemas')],
    [{ volume: { source_volid: 'x' } }, field('source_volid', "x. 'x' is not valid under any of the given schemas")],
  ])('%j: %s', (body, message) => {
    expect(() => check(Body, body, WORDS)).toThrow(expect.objectContaining({ message }))
  })

  test('spaces around a name do not count to its length', () => {
    const name = 'n'.repeat(255)
    expect(check(Body, { volume: { name: ` ${name} ` } }, WORDS)).toEqual({ volume: { name } })
  })

  test('what is repeated is cut', () => {
    const body = { volume: { mode: 'x'.repeat(100_000) } }
    expect(() => check(Body, body, WORDS)).toThrow(/^.{500,1100}$/)
  })
})

test.each([
  ["it's", `"it's"`],
  [`"it's"`, `'"it\\'s"'`],
  ['a\nb\tc\\\x01', "'a\\nb\\tc\\\\\\x01'"],
  [[1, 'a', null], "[1, 'a', None]"],
  [{ a: true, b: { c: false } }, "{'a': True, 'b': {'c': False}}"],
])('Python prints %j as %s', (value, printed) => {
  expect(repr(value)).toBe(printed)
})

describe('through the door', () => {
  let api: Harness
  let id: string
  beforeAll(async () => {
    api = await createHarness()
    id = (await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, metadata: { k: 'v' } } } })).body.volume.id
    await api.services.idle()
  })
  afterAll(() => api.close())

  test.each([
    [
      'POST',
      '/v3/volumes',
      { volume: { size: 1, multiattach: null } },
      "Value 'None' for 'multiattach' is not a boolean.",
    ],
    [
      'POST',
      '/v3/volumes/ID/metadata',
      { metadata: { $: 'v', ü: 'v' } },
      field('metadata', "{'$': 'v', 'ü': 'v'}. '$', 'ü' do not match any of the regexes: '^[a-zA-Z0-9-_:. /]{1,255}$'"),
    ],
    ['PUT', '/v3/volumes/ID/metadata/k', { meta: {} }, field('meta', '{}. {} should be non-empty')],
    [
      'PUT',
      '/v3/volumes/ID/metadata/k',
      { meta: { k: 'v', l: 'w' } },
      field('meta', "{'k': 'v', 'l': 'w'}. {'k': 'v', 'l': 'w'} has too many properties"),
    ],
    [
      'POST',
      '/v3/volumes/ID/action',
      { 'os-reset_status': { attach_status: 'x' } },
      "Volume attach status: x is invalid, valid statuses are: ['attached', 'detached'].",
    ],
    [
      'POST',
      '/v3/volumes/ID/action',
      { 'os-reset_status': { status: '' } },
      "Must specify 'status', 'attach_status' or 'migration_status' for update.",
    ],
    [
      'POST',
      '/v3/snapshots',
      { snapshot: { volume_id: 'ID', force: null } },
      field('force', "None. None is not of type 'boolean', 'string'"),
    ],
  ] as const)('%s %s %j', async (method, path, body, message) => {
    const sent = JSON.parse(JSON.stringify(body).replaceAll('"ID"', `"${id}"`))
    const answer = await api.ask(method, path.replace('ID', id), { body: sent })
    expect(answer.body).toEqual({ badRequest: { code: 400, message } })
  })

  test('force has no meaning from 3.66 on, as upstream says it', async () => {
    const body = { snapshot: { volume_id: id, force: false } }
    const { body: answer } = await api.ask('POST', '/v3/snapshots', { version: '3.66', body })
    expect(answer.badRequest.message).toMatch(
      /^Since microversion 3.66 the 'force' flag is invalid for this request. {2}For/,
    )
  })

  test('an id in another form is an id, of nothing', async () => {
    const bare = '1'.repeat(32)
    for (const [body, message] of [
      [{ volume: { size: 1, snapshot_id: bare } }, `Snapshot ${bare} could not be found.`],
      [{ volume: { size: 1, source_volid: `{${bare}}` } }, `Volume {${bare}} could not be found.`],
    ] as const) {
      expect((await api.ask('POST', '/v3/volumes', { body })).body.itemNotFound.message).toBe(message)
    }
    const { body } = await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: null } } })
    expect(body.itemNotFound.message).toBe('Volume None could not be found.')
  })

  test('a path whose project is no id is no path; that of another project is malformed', async () => {
    expect((await api.ask('GET', '/v3/project-of-mine/volumes')).status).toBe(404)
    const other = await api.ask('GET', `/v3/${PROJECT.replace('0', 'f')}/volumes`)
    expect(other.body).toEqual({ badRequest: { code: 400, message: 'Malformed request url' } })
  })

  test('metadata of snapshots is sent with anything beside it, and an empty If-Match is none', async () => {
    const made = await api.ask('POST', '/v3/snapshots', { body: { snapshot: { volume_id: id } } })
    await api.services.idle()
    const url = `/v3/snapshots/${made.body.snapshot.id}/metadata`
    expect((await api.ask('POST', url, { body: { metadata: { a: 'b' }, x: 1 } })).body).toEqual({
      metadata: { a: 'b' },
    })
    expect((await api.ask('POST', url, { body: { metadata: { 'a/b': 'c' } } })).status).toBe(400)
    const empty = { version: '3.15', headers: { 'if-match': '' }, body: { metadata: { k: 'v' } } }
    expect((await api.ask('PUT', `/v3/volumes/${id}/metadata`, empty)).status).toBe(200)
  })

  test('the root says in which version it answers', async () => {
    const { headers } = await api.ask('GET', '/', { version: '3.5' })
    expect([headers['openstack-api-version'], headers.vary]).toEqual(['volume 3.5', 'OpenStack-API-Version'])
    expect((await api.ask('GET', '/', { version: '3.99' })).status).toBe(406)
  })
})
