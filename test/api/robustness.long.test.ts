import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROUTES } from '../../src/api/v3/index.ts'
import { createTarget, probe, requestsOf, type Target } from './hostile.ts'

/** A hundred thousand requests, spread over all routes; a failure prints the seed, which FIRST_SEED repeats. */

const REQUESTS = Number(process.env.INPUTS ?? 100_000)
const SEED = Number(process.env.FIRST_SEED ?? 1)

let target: Target
beforeAll(async () => {
  target = await createTarget()
})
afterAll(async () => {
  await target.api.close()
  const counts = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`)
  console.log(`${requests} requests on ${ROUTES.length} routes; ${counts.join(', ')}`)
})

let requests = 0
const statuses = new Map<number, number>()

test.each(ROUTES.map((route, index) => [route.operation, route, index] as const))(
  '%s',
  async (_operation, route, index) => {
    const numRuns = Math.floor(REQUESTS / ROUTES.length) + (index < REQUESTS % ROUTES.length ? 1 : 0)
    const run = fc.asyncProperty(requestsOf(route, target), async (request) => {
      const { status } = await probe(target, request)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      requests += 1
    })
    await fc.assert(run, { numRuns, seed: SEED + index })
    expect(requests).toBeGreaterThanOrEqual(numRuns)
  },
  600_000,
)
