import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Route } from '../../src/api/route.ts'
import { ROUTES } from '../../src/api/v3/index.ts'
import { bodiesOf } from './arbitrary.ts'
import { createHarness, type Harness, PROJECT } from './harness.ts'

/** Whatever a client sends, the answer is a success or a refusal that says why, never a failure of ours. */

let api: Harness
/** Things that exist, by the collection of their URL, and names of nothing. */
const existing: Record<string, string[]> = {
  volumes: [],
  snapshots: [],
  attachments: [],
  types: [],
  extensions: [],
  'default-types': [PROJECT],
  'os-quota-sets': [PROJECT],
  'os-quota-class-sets': ['default'],
}
const NOTHING = ['11111111-1111-1111-1111-111111111111', 'a', '%F0%9F%92%BE']

beforeAll(async () => {
  api = await createHarness()
  const make = async (collection: string, resource: string, content: object) => {
    const { body } = await api.ask('POST', `/v3/${collection}`, { version: '3.27', body: { [resource]: content } })
    await api.services.idle()
    existing[collection]!.push(body[resource].id)
    return body[resource].id
  }
  for (let index = 0; index < 4; index++) {
    const volume_id = await make('volumes', 'volume', { size: 1, metadata: { a: 'b' } })
    await make('snapshots', 'snapshot', { volume_id, metadata: { a: 'b' } })
    await make('attachments', 'attachment', { volume_uuid: volume_id })
  }
  const fast = await make('types', 'volume_type', { name: 'fast', extra_specs: { a: 'b' } })
  const encryption = { provider: 'luks', control_location: 'front-end' }
  await api.ask('POST', `/v3/types/${fast}/encryption`, { body: { encryption } })
  await make('types', 'volume_type', { name: 'private', 'os-volume-type-access:is_public': false })
  await make('types', 'volume_type', { name: 'used' })
  await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, volume_type: 'used' } } })
  existing.extensions!.push('os-volume-actions')
})
afterAll(() => api.close())

const versions = fc.nat(71).map((minor) => `3.${minor}`)
const roles = fc.constantFrom('admin', 'member', 'reader', 'admin+service', '')
const queries = fc.dictionary(
  fc.oneof(
    fc.constantFrom('limit', 'offset', 'marker', 'sort', 'sort_key', 'sort_dir', 'name', 'name~', 'status', 'size'),
    fc.constantFrom('metadata', 'bootable', 'created_at', 'all_tenants', 'with_count', 'volume_id', 'is_public'),
    fc.constantFrom('group_id', 'consumes_quota', 'extra_specs', 'force', 'cascade', 'project_id', 'host'),
    fc.string({ maxLength: 8 }),
  ),
  fc.oneof(fc.string(), fc.constantFrom('1', '0', '-1', 'true', 'none', "{'a': 'b'}", 'name:asc', 'gt:2020-01-01')),
  { maxKeys: 4 },
)

function urls({ url }: Route): fc.Arbitrary<string> {
  const filled = fc.array(fc.nat(), { minLength: 2, maxLength: 2 }).map(([first, second]) => {
    const known = existing[url.split('/')[1]!] ?? []
    const ids = [...known, ...known, ...NOTHING] // more often something than nothing
    const keys = ['a', 'b', 'encryption_key_id', ...NOTHING]
    return url.replace(/:key/, keys[second! % keys.length]!).replace(/:\w+/, ids[first! % ids.length]!)
  })
  return fc.tuple(fc.constantFrom('/v3', `/v3/${PROJECT}`), filled).map((parts) => parts.join(''))
}

test.each(ROUTES.map((route) => [route.operation, route] as const))('%s', async (_operation, route) => {
  const payload = route.body === null ? fc.constant(undefined) : bodiesOf(route.body, () => existing.volumes!)
  await fc.assert(
    fc.asyncProperty(urls(route), queries, versions, roles, payload, async (url, query, version, as, content) => {
      const body = route.action === null ? content : { [route.action]: content ?? null }
      const search = new URLSearchParams(query).toString()
      const answer = await api.ask(route.method, `${url}?${search}`, {
        version,
        roles: as,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      })
      expect(answer.status, `${answer.text} ${api.logged.at(-2)}`).toBeLessThan(500)
      if (answer.status >= 400 && answer.status !== 412) {
        const [fault] = Object.values(answer.body) as { code: number; message: string }[]
        expect(fault).toMatchObject({ code: answer.status, message: expect.stringMatching(/./) })
      }
    }),
    { numRuns: 60 },
  )
})
