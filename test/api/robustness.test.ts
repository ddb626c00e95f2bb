import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ROUTES } from '../../src/api/v3/index.ts'
import { createTarget, probe, requestsOf, type Target } from './hostile.ts'

/** Whatever a client sends, the answer is a success or a refusal that says why, never a failure of ours. */

const RUNS_PER_ROUTE = 60

let target: Target
beforeAll(async () => {
  target = await createTarget()
})
afterAll(() => target.api.close())

const statuses = new Map<number, number>()

test.each(ROUTES.map((route, index) => [route.operation, route, index] as const))(
  '%s',
  async (_operation, route, index) => {
    const run = fc.asyncProperty(requestsOf(route, target), async (request) => {
      const { status } = await probe(target, request)
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
    })
    await fc.assert(run, { numRuns: RUNS_PER_ROUTE, seed: Number(process.env.FIRST_SEED ?? 1) + index })
  },
)

test('the requests were met with successes and with every kind of refusal', () => {
  expect([...statuses.keys()]).toEqual(expect.arrayContaining([200, 202, 204, 400, 403, 404, 406, 413, 415]))
  expect(statuses.get(400)! + statuses.get(404)!).toBeLessThan(0.8 * RUNS_PER_ROUTE * ROUTES.length)
})
