import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { at } from '../../src/api/microversion.ts'
import { createPolicy } from '../../src/api/policy.ts'
import { bodiesOf } from './arbitrary.ts'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'
import { bodyOf, ENCRYPTION, RIGHT, ROUTES } from './type-requests.ts'

/**
 * Requests made from the schemas of types and quotas, at any version and by anybody. What is refused is refused for the
 * first of these reasons: the operation is newer (404), the body is wrong (400), the rule says no (403). What is left
 * ends in one of the ways that the operation has.
 */

let api: Harness
const policy = createPolicy()
const ids: string[] = [PROJECT, OTHER_PROJECT]

beforeAll(async () => {
  api = await createHarness()
  const default_type = { volume_type: '__DEFAULT__' }
  await api.ask('PUT', `/v3/default-types/${PROJECT}`, { version: '3.62', body: { default_type } })
})
afterAll(() => api.close())

/** How an operation may end that came so far; 200 and 404 when it is not named. */
const ENDS: Record<string, readonly number[]> = {
  list_types: [200, 400, 404], // for sort keys and markers that there are not
  create_type: [200, 400, 409], // 400 for specs that exclude each other
  update_type: [200, 404, 409],
  delete_type: [202, 400, 404],
  create_type_extra_specs: [200, 400, 404],
  update_type_extra_spec: [200, 400, 404], // 400 for another key than that of the path
  delete_type_extra_spec: [202, 400, 404],
  list_type_access: [200, 404],
  add_type_access: [202, 400, 404, 409],
  remove_type_access: [202, 400, 404],
  create_type_encryption: [200, 400, 404],
  update_type_encryption: [200, 400, 404],
  delete_type_encryption: [202, 400, 404],
  set_project_default_type: [200, 400],
  unset_project_default_type: [204],
  update_quota_set: [200, 400], // 400 for quotas that there are not
  delete_quota_set: [200],
  update_quota_class_set: [200, 400],
}

/** A type with everything that can be asked of one: private or not, encrypted or not, in use or not. */
async function makeType(traits: { isPublic: boolean; encrypted: boolean; used: boolean }): Promise<string> {
  const volume_type = {
    name: `type ${ids.length}`,
    extra_specs: { a: 'b', multiattach: '<is> False' },
    'os-volume-type-access:is_public': traits.isPublic,
  }
  const { body } = await api.ask('POST', '/v3/types', { body: { volume_type } })
  const { id } = body.volume_type
  if (traits.used) await api.ask('POST', '/v3/volumes', { body: { volume: { size: 1, volume_type: id } } })
  if (traits.encrypted) await api.ask('POST', `/v3/types/${id}/encryption`, { body: { encryption: ENCRYPTION } })
  ids.push(id)
  return id
}

const queries = fc.dictionary(
  fc.constantFrom('is_public', 'extra_specs', 'name', 'sort', 'limit', 'marker', 'usage', 'surplus'),
  fc.oneof(fc.string({ maxLength: 20 }), fc.constantFrom('1', 'none', 'true', 'no', "{'a': 'b'}", 'name:asc')),
  { maxKeys: 2 },
)

test.each(ROUTES.map((route) => [route.operation, route] as const))('%s', async (operation, route) => {
  const requests = fc.record({
    minor: fc.oneof(fc.nat(71), fc.constant(71)),
    roles: fc.constantFrom('admin', 'admin', 'member', 'reader', 'nobody'),
    traits: fc.record({ isPublic: fc.boolean(), encrypted: fc.boolean(), used: fc.boolean() }),
    key: fc.constantFrom('a', 'multiattach', 'provider', 'cipher', 'absent', '__proto__'),
    subject: fc.constantFrom(PROJECT, OTHER_PROJECT, 'default', '%F0%9F%92%BE', 'x'.repeat(255)),
    query: queries,
    fitting: fc.boolean(),
    content: route.body === null ? fc.constant(undefined) : bodiesOf(route.body, () => ids),
  })
  const right = {
    minor: 71,
    roles: 'admin',
    traits: { isPublic: !operation.includes('access'), encrypted: operation !== 'create_type_encryption', used: false },
    key: operation.includes('encryption') ? 'provider' : 'multiattach',
    subject: PROJECT,
    query: {},
    fitting: operation === 'remove_type_access',
    content: RIGHT[operation],
  }
  const ends = new Set<number>()
  await fc.assert(
    fc.asyncProperty(requests, async ({ minor, roles, traits, key, subject, query, fitting, content }) => {
      const id = route.url.includes(':volume_type_id') ? await makeType(traits) : ''
      if (fitting && operation === 'remove_type_access') {
        await api.ask('POST', `/v3/types/${id}/action`, { body: { addProjectAccess: content ?? null } })
      }
      const named = Object.keys(content ?? {})[0]
      const pathKey = fitting && named !== undefined && /^[\w: -]+$/.test(named) ? encodeURIComponent(named) : key
      const path = route.url
        .replace(':volume_type_id', id)
        .replace(':key', () => pathKey)
        .replace(':id', subject)
      const body = route.body === null ? undefined : bodyOf(route, content)
      const { status, text } = await api.ask(route.method, `/v3${path}?${new URLSearchParams(query)}`, {
        version: `3.${minor}`,
        roles,
        ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
      })
      ends.add(status)
      const sent = body === undefined ? undefined : JSON.parse(JSON.stringify(content ?? null))
      const client = { minor, admin: roles === 'admin' }
      const isRight =
        at(route.query, client).safeParse(query).success &&
        (route.body === null || at(route.body, client).safeParse(sent).success)
      const project = route.url.startsWith('/os-quota-sets') ? subject : PROJECT
      const isLetIn = policy.isAllowed(
        route.policy!,
        { userId: 'u', projectId: PROJECT, roles: [roles] },
        { projectId: project },
      )
      const expected =
        minor < route.since ? [404] : !isRight ? [400] : !isLetIn ? [403] : (ENDS[operation] ?? [200, 404])
      expect(expected, text).toContain(status)
    }),
    { numRuns: 40, examples: [[right]] },
  )
  expect(
    [...ends].some((status) => status < 300),
    'no request succeeded',
  ).toBe(true)
})

test('what is left can be read and makes sense', async () => {
  const types = await api.ask('GET', '/v3/types?is_public=None')
  expect(types.status).toBe(200)
  for (const project of [PROJECT, OTHER_PROJECT]) {
    const { body } = await api.ask('GET', `/v3/os-quota-sets/${project}?usage=true`)
    const { id, ...quotas } = body.quota_set
    expect(id).toBe(project)
    for (const [name, quota] of Object.entries(quotas)) {
      expect(quota, name).toEqual({ limit: expect.any(Number), in_use: expect.any(Number), reserved: 0 })
      expect((quota as { limit: number }).limit).toBeGreaterThanOrEqual(-1)
    }
  }
})
