import { beforeEach, describe, expect, it } from 'vitest'
import type { ImageOptions } from '../../src/services/images/images.ts'
import type { Dialect } from '../db/harness.ts'
import { type FakeGlance, startFakeGlance } from '../tools/fake-glance.ts'
import { imageOptions } from '../tools/image-options.ts'
import { Cutter } from './cutter.ts'
import { availableVolume, createHarness, member, newVolume, outcome, TEST_SETTINGS } from './harness.ts'
import {
  type CutScenario,
  expectSound,
  FURTHER_GROUP_SCENARIOS,
  FURTHER_SCENARIOS,
  GROUP_SCENARIOS,
  SCENARIOS,
  worldOf,
} from './scenarios.ts'

/** The image service of the test; a transfer takes one attempt. */
let glance: FakeGlance
let images: ImageOptions

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

const ALL: readonly CutScenario[] = [
  ...SCENARIOS,
  ...FURTHER_SCENARIOS,
  ...IMAGE_SCENARIOS,
  ...GROUP_SCENARIOS,
  ...FURTHER_GROUP_SCENARIOS,
]

/**
 * Each kind of work, cut off: the process dies, at every moment at which that makes a difference, and other services go on with the
 * same database. Of `share` moments one is tried, another one with each kind.
 */
export function describeCuts(dialect: Dialect, { share }: { share: number }): void {
  describe(`a process that dies on ${dialect}`, () => {
    beforeEach(async () => {
      glance = await startFakeGlance()
      images = imageOptions(glance.url, { sliceMs: 10_000 })
    })

    it.each(ALL.map((scenario, turn) => ({ ...scenario, turn })))(
      'at any moment of $name leaves nothing stuck, lost or counted twice',
      async ({ turn, ...scenario }) => {
        const whole = await cut(dialect, scenario, null)
        expect(await whole.request).toBe('done')
        await whole.doomed.settled()
        const { moments } = whole.cutter
        const after = await worldOf(whole.doomed)
        await whole.doomed.end()
        expect(moments.filter((moment) => moment === 'before a commit').length).toBeGreaterThan(0)
        for (const [at, moment] of moments.entries()) {
          if (at % share !== turn % share) continue
          const about = `cut at ${at} of ${moments.length}: ${moment}, ${scenario.name}`
          const { cutter, doomed, before, request } = await cut(dialect, scenario, at)
          // A transaction that lost against another and was run again gives one run more moments than the next.
          await Promise.race([cutter.reached, request.then(() => doomed.settled())])
          await doomed.die()
          const survivor = await doomed.reopen({ settings: { stopGraceMs: 0 } })
          await survivor.settled()
          await expectSound(survivor)
          const world = await worldOf(survivor)
          const isUndone = at === 0 || (ANSWERED_WHEN_DONE.includes(scenario.name) && at < moments.length - 1)
          expect(world, about).toEqual(isUndone ? before : after)
          await doomed.end()
        }
      },
      300_000,
    )
  })
}

/** Begins the request in a process that is cut off at the moment `at`, or never. */
async function cut(dialect: Dialect, { options, prepare, act }: CutScenario, at: number | null) {
  const cutter = new Cutter(at)
  const { filter, wrapDatabase } = cutter
  const work = { ...TEST_SETTINGS.work, heartbeatMs: 60_000 } // no beats between the moments
  const settings = { stopGraceMs: 0, work }
  const doomed = await createHarness({ images, ...options?.(), dialect, filters: [filter], wrapDatabase, settings })
  const id = await prepare(doomed)
  await doomed.services.idle()
  const before = await worldOf(doomed)
  cutter.begin()
  const request = outcome(act(doomed, id))
  return { cutter, doomed, before, request }
}
