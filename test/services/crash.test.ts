import { beforeEach, describe, expect, it } from 'vitest'
import { errorFilter, type FaultPoint, hangFilter, onMethod } from '../../src/drivers/wrappers.ts'
import type { ImageOptions } from '../../src/services/images/images.ts'
import { DIALECTS } from '../db/harness.ts'
import { type FakeGlance, startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { Cutter } from './cutter.ts'
import { availableVolume, createHarness, member, newAttachment, newVolume, outcome, TEST_SETTINGS } from './harness.ts'
import {
  type CutScenario,
  connector,
  expectNewest,
  expectSound,
  FURTHER_GROUP_SCENARIOS,
  FURTHER_SCENARIOS,
  GROUP_SCENARIOS,
  SCENARIOS,
  worldOf,
} from './scenarios.ts'

/**
 * Each kind of work, cut off in two ways: the process dies, at every moment at which that makes a difference, and other services
 * go on with the same database; and the backend fails for good, before or after it did its part.
 */
/** The image service of the test; a transfer takes one attempt. */
let glance: FakeGlance
let images: ImageOptions

beforeEach(async () => {
  glance = await startFakeGlance()
  images = imageOptions(glance.url, { sliceMs: 10_000 })
})

const IMAGE_SCENARIOS: readonly CutScenario[] = [
  {
    name: 'creating a volume from an image',
    prepare: async () => glance.add(Buffer.alloc(8192, 'image')),
    act: (harness, imageRef) => harness.services.volumes.create(member, newVolume({ imageRef })),
  },
  {
    name: 'writing an image over a volume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) =>
      harness.services.volumes.reimage(member, id, {
        imageId: glance.add(Buffer.alloc(8192, 'image')),
        reserved: false,
      }),
  },
  {
    name: 'making an image of a volume',
    prepare: (harness) => availableVolume(harness),
    act: (harness, id) =>
      harness.services.volumes.uploadImage(member, id, {
        imageName: 'made',
        diskFormat: 'qcow2',
        containerFormat: 'bare',
        visibility: null,
        isProtected: null,
        force: false,
      }),
  },
]

/** Requests that answer once they are done: what nobody waits for any more may be undone. */
const ANSWERED_WHEN_DONE = ['attaching a volume', 'connecting a reserved attachment']

describe.each(DIALECTS)('a process that dies on %s', (dialect) => {
  it.each<CutScenario>([
    ...SCENARIOS,
    ...FURTHER_SCENARIOS,
    ...IMAGE_SCENARIOS,
    ...GROUP_SCENARIOS,
    ...FURTHER_GROUP_SCENARIOS,
  ])(
    'at any moment of $name leaves nothing stuck, lost or counted twice',
    async ({ name, options, prepare, act }) => {
      const cut = async (at: number | null) => {
        const cutter = new Cutter(at)
        const harness = await createHarness({ images, ...options?.(), dialect, settings: { stopGraceMs: 0 } })
        const id = await prepare(harness)
        const before = await worldOf(harness)
        const { filter, wrapDatabase } = cutter
        const work = { ...TEST_SETTINGS.work, heartbeatMs: 60_000 } // no beats between the moments
        const doomed = await harness.reopen({ filters: [filter], wrapDatabase, settings: { stopGraceMs: 0, work } })
        await harness.services.stop() // or it would take part
        await doomed.services.idle()
        cutter.begin()
        const request = outcome(act(doomed, id))
        return { cutter, harness, doomed, before, request }
      }
      const whole = await cut(null)
      expect(await whole.request).toBe('done')
      await whole.doomed.settled()
      const { moments } = whole.cutter
      const after = await worldOf(whole.doomed)
      expect(moments.filter((moment) => moment === 'before a commit').length).toBeGreaterThan(0)
      for (const [at, moment] of moments.entries()) {
        const about = `cut at ${at} of ${moments.length}: ${moment}, ${name}`
        const { cutter, doomed, before, request } = await cut(at)
        // A transaction that lost against another and was run again gives one run more moments than the next.
        await Promise.race([cutter.reached, request.then(() => doomed.settled())])
        await doomed.die()
        const survivor = await doomed.reopen()
        await survivor.settled()
        await expectSound(survivor)
        const world = await worldOf(survivor)
        const isUndone = at === 0 || (ANSWERED_WHEN_DONE.includes(name) && at < moments.length - 1)
        expect(world, about).toEqual(isUndone ? before : after)
        await survivor.services.stop()
      }
    },
    300_000,
  )
})

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
