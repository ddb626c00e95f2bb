import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  API_PAGE,
  ELSEWHERE,
  identityOf,
  servedOperations,
  upstreamOperations,
  withTables,
} from '../../scripts/api-docs.ts'
import { createHarness } from './harness.ts'

const page = readFileSync(API_PAGE, 'utf8')

test('the tables of the page are those of the routes (else: npx tsx scripts/api-docs.ts)', () => {
  expect(page).toBe(withTables(page))
})

test('every route is an operation of upstream, from the same microversion on', () => {
  const upstream = new Map(upstreamOperations().map((operation) => [identityOf(operation), operation.since]))
  const ours = [...servedOperations()]
  expect(ours).toEqual(ours.map(([identity]) => [identity, upstream.get(identity)]))
})

test('each operation of upstream is listed once, in the order of its resources', () => {
  const operations = upstreamOperations()
  const lines = operations.map(({ method, path, action }) => `${method} ${path} ${action}`)
  expect(new Set(lines).size).toBe(lines.length)
  const resources = operations.map(({ resource }) => resource)
  const changes = resources.filter((resource, index) => resource !== resources[index - 1])
  expect(changes).toEqual([...new Set(resources)])
})

test('what is served outside of the routes answers', async () => {
  const api = await createHarness()
  for (const identity of ELSEWHERE) {
    const [method, path] = identity.split(' ') as ['GET', string]
    expect((await api.ask(method, path)).status, identity).toBeLessThan(400)
  }
  await api.close()
})
