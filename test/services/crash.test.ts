import { describe, expect, it } from 'vitest'
import { errorFilter, type FaultPoint, hangFilter, onMethod } from '../../src/drivers/wrappers.ts'
import { runsPostgres } from '../tools/postgres.ts'
import { describeCuts } from './cuts.ts'
import { createHarness, member, newAttachment, newVolume, outcome } from './harness.ts'
import { describeReencryptionCuts } from './reencryption-cuts.ts'
import { connector, expectNewest, expectSound, GROUP_SCENARIOS, SCENARIOS } from './scenarios.ts'
import { describeSwapCuts } from './swap-cuts.ts'

/** Each kind of work, cut off in two ways: the process dies, or the backend fails for good, before or after it did its part. */

// All moments are in the long form. They are the same on both databases, and to make one on PostgreSQL takes longer.
describeCuts('SQLite', { share: 5 })
if (runsPostgres) describeCuts('PostgreSQL', { share: 30 })
describeSwapCuts('SQLite', { share: 8 })
if (runsPostgres) describeSwapCuts('PostgreSQL', { share: 16 })
describeReencryptionCuts({ sizeGib: 1, share: 6 })

describe.each([...SCENARIOS, ...GROUP_SCENARIOS])('$name', ({ method, prepare, act, givenUp }) => {
  const points: readonly FaultPoint[] = ['before', 'after']

  it.each(points)(`ends when the backend fails for good %s ${method}`, async (point) => {
    const harness = await createHarness()
    const id = await prepare(harness)
    const unlucky = await harness.reopen({ filters: [errorFilter(onMethod(method), point)] })
    await harness.services.stop() // or it would take part
    expect(['done', 'BackendFailure']).toContain(await outcome(act(unlucky, id)))
    await unlucky.settled()
    await expectSound(unlucky)
    await givenUp(unlucky, id)
  })
})

it('stops at once in the middle of work and goes on after the next start', async () => {
  const harness = await createHarness({ settings: { stopGraceMs: 0 } })
  let reached = () => {}
  const cutOff = new Promise<void>((resolve) => {
    reached = resolve
  })
  const slow = await harness.reopen({ filters: [hangFilter(onMethod('createVolume'), 'before', reached)] })
  await harness.services.stop()
  const { id } = await slow.services.volumes.create(member, newVolume())
  await cutOff
  await slow.services.stop()
  expect((await slow.services.explain(id))?.work).toMatchObject({
    kind: 'volume-create',
    step: 'provision',
    attempt: 1,
  })
  await slow.die() // where processes share a database, one that did not come to an end is waited for
  const next = await harness.reopen()
  await next.settled()
  await expectNewest(next, 'available')
})

it('finishes what runs before it stops', async () => {
  const harness = await createHarness()
  const ids = await Promise.all(
    Array.from({ length: 5 }, async () => (await harness.services.volumes.create(member, newVolume())).id),
  )
  await harness.services.stop()
  for (const id of ids) expect((await harness.services.explain(id))?.status).toBe('available')
  expect(await outcome(harness.services.attachments.create(member, newAttachment(ids[0]!, { connector })))).toBe(
    'ServiceUnavailable',
  )
})
