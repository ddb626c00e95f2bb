import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Check, RULES } from '../../src/api/policy.ts'
import type { Route } from '../../src/api/route.ts'
import { quotaRoutes } from '../../src/api/v3/quotas.ts'
import { createHarness, type Harness, OTHER_PROJECT, PROJECT } from './harness.ts'
import { bodyOf, ENCRYPTION, RIGHT, ROUTES } from './type-requests.ts'

/** Every operation of types and quotas, asked by every persona with a request that is right. */

let api: Harness
beforeAll(async () => {
  api = await createHarness()
})
afterAll(() => api.close())

const PERSONAS: Record<string, readonly Check[]> = {
  '': [],
  nobody: [],
  reader: ['reader'],
  member: ['reader', 'member'],
  'member+reader': ['reader', 'member'],
  admin: ['reader', 'member', 'admin'],
}

/** A type of its own for each request, as it must be for that to succeed. */
async function subjectOf({ operation }: Route): Promise<string> {
  const isPrivate = operation.endsWith('_access')
  const { body } = await api.ask('POST', '/v3/types', {
    body: {
      volume_type: {
        name: `type-${counter++}`,
        extra_specs: { multiattach: '<is> False' },
        'os-volume-type-access:is_public': !isPrivate,
      },
    },
  })
  const { id } = body.volume_type
  const project = OTHER_PROJECT
  if (isPrivate) await api.ask('POST', `/v3/types/${id}/action`, { body: { addProjectAccess: { project } } })
  const encrypted = operation.includes('encryption') && operation !== 'create_type_encryption'
  if (encrypted) await api.ask('POST', `/v3/types/${id}/encryption`, { body: { encryption: ENCRYPTION } })
  if (operation.includes('project_default_type')) {
    const preset = { default_type: { volume_type: '__DEFAULT__' } }
    await api.ask('PUT', `/v3/default-types/${PROJECT}`, { version: '3.62', body: preset })
  }
  return id
}
let counter = 0

test.each(
  ROUTES.flatMap((route) => Object.keys(PERSONAS).map((persona) => [route.operation, persona, route] as const)),
)('%s as %j', async (operation, persona, route) => {
  const id = await subjectOf(route)
  const subject = route.url.includes('class-sets') ? 'default' : PROJECT
  const url = route.url
    .replace(':volume_type_id', id)
    .replace(':key', operation.includes('encryption') ? 'provider' : 'multiattach')
    .replace(':id', subject)
  const ask = () =>
    api.ask(route.method, `/v3${url}`, { version: '3.71', roles: persona, body: bodyOf(route, RIGHT[operation]) })
  const { status, body, text } = await ask()
  const allowed = PERSONAS[persona]!.includes(RULES[route.policy!])
  expect(status, text).toBe(allowed ? route.status : 403)
  const refusal = route.policy!.startsWith('volume_extension:default_') // upstream does not say which rule
    ? 'You are not authorized to perform this operation.'
    : `Policy doesn't allow ${route.policy} to be performed.`
  if (!allowed) expect(body.forbidden.message).toBe(refusal)
  if (operation === 'create_type' && allowed) await api.ask('DELETE', `/v3/types/${body.volume_type.id}`)
})

test.each(['show_quota_set', 'show_default_quota_set'])('%s of another project is for administrators', async (name) => {
  const url = quotaRoutes.find(({ operation }) => operation === name)!.url.replace(':id', OTHER_PROJECT)
  const statuses = Object.keys(PERSONAS).map(async (roles) => [
    roles,
    (await api.ask('GET', `/v3${url}`, { roles })).status,
  ])
  expect(Object.fromEntries(await Promise.all(statuses))).toEqual(
    Object.fromEntries(Object.keys(PERSONAS).map((roles) => [roles, roles === 'admin' ? 200 : 403])),
  )
})

test('a body that is wrong is told so before anybody asks who sent it', async () => {
  const withBodies = ROUTES.filter(({ body }) => body !== null)
  for (const route of withBodies) {
    const path = `/v3${route.url.replace(/:\w+/g, 'x')}`
    const body = bodyOf(route, { surplus: 1 })
    const { status, text } = await api.ask(route.method, path, { version: '3.71', roles: 'reader', body })
    expect(status, `${route.method} ${path} ${text}`).toBe(400)
  }
})
