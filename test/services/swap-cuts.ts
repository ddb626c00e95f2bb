import { expect, it, vi } from 'vitest'
import type { Dialect } from '../db/harness.ts'
import type { BlockStorage } from '../tools/nova-swap.ts'
import { Cutter } from './cutter.ts'
import { admin, createHarness, type Harness, outcome, TEST_SETTINGS } from './harness.ts'
import { expectSound } from './scenarios.ts'
import {
  attachedVolume,
  createSwapWorld,
  HOME,
  migrate,
  OTHER,
  SERVER,
  type SwapWorld,
  storageOf,
} from './swap-world.ts'

/**
 * A volume in use is moved, and the process dies at any moment of that, also of what Nova asks of it. Nova hears nothing from it any
 * more, takes that for a failure, and goes on with the next process. Of `share` moments one is tried.
 */
export function describeSwapCuts(dialect: Dialect, { share }: { share: number }): void {
  it(`a process that dies at any moment of moving a volume in use leaves nothing stuck on ${dialect}`, async () => {
    const whole = await cut(dialect, null)
    expect(whole.volume).toMatchObject({ status: 'in-use', migrationStatus: 'success', host: OTHER })
    const ends = new Set<string>()
    for (const [at, moment] of whole.moments.entries()) {
      if (at % share !== share - 1) continue
      const about = `cut at ${at} of ${whole.moments.length}: ${moment}`
      const { volume, left } = await cut(dialect, at)
      if (volume.migrationStatus === null) continue // the request itself
      ends.add(volume.migrationStatus)
      const host = volume.migrationStatus === 'success' ? OTHER : HOME
      const nameId = volume.migrationStatus === 'success' ? expect.any(String) : null
      expect(volume, about).toMatchObject({ status: 'in-use', host, nameId })
      expect(volume.attachments, about).toMatchObject([{ instanceId: SERVER, status: 'attached' }])
      expect(left, about).toBe(1)
    }
    if (share === 1) expect(ends).toEqual(new Set(['success', 'error']))
  }, 300_000)
}

async function cut(dialect: Dialect, at: number | null) {
  const world = await createSwapWorld()
  const { filter, wrapDatabase, ...cutter } = viewOf(new Cutter(at))
  const work = { ...TEST_SETTINGS.work, heartbeatMs: 60_000 } // no beats between the moments
  const settings = { stopGraceMs: 0, work }
  const doomed = await createHarness(world.options({ dialect, filters: [filter], wrapDatabase, settings }))
  const id = await attachedVolume(doomed, world.nova)
  world.serve(doomed)
  const survivor = cutter.reached.then(async () => {
    await doomed.die()
    return doomed.reopen({ settings: { stopGraceMs: 0 } })
  })
  world.nova.world!.storage = untilDeath(doomed, survivor)
  cutter.begin()
  const request = outcome(migrate(doomed, id))
  const next = await Promise.race([survivor, request.then(() => world.settled(doomed))])
  const last = next === undefined ? doomed : await giveUpWaiting(world, next)
  await expectSound(last)
  await world.expectAtRest(last)
  const volume = await last.services.volumes.get(admin, id)
  const left = (await last.db('volumes')).length
  await doomed.end()
  return { volume, left, moments: cutter.moments }
}

/** What the dead process has heard, nobody says again: the time comes when it is not waited for any more. */
async function giveUpWaiting({ nova }: SwapWorld, harness: Harness): Promise<Harness> {
  const { db } = harness
  const settled = () =>
    vi.waitFor(async () => expect(await db('work').whereNot({ next_step: 'await' })).toEqual([]), { timeout: 30_000 })
  await settled()
  await nova.swapped()
  await settled()
  await harness.services.stop()
  await db('work').update({ due_at_ms: 0 })
  const last = await harness.reopen()
  await last.settled()
  return last
}

/** Fields that may be taken apart. */
function viewOf(cutter: Cutter) {
  const { filter, wrapDatabase, reached, moments } = cutter
  return { filter, wrapDatabase, reached, moments, begin: () => cutter.begin() }
}

/** Calls of a process that dies never end there, and fail; then they go to the next one. */
function untilDeath(doomed: Harness, survivor: Promise<Harness>): BlockStorage {
  let next: Harness | null = null
  const died = survivor.then((harness) => {
    next = harness
    throw new Error('the connection was reset')
  })
  died.catch(() => {})
  const first = storageOf(doomed)
  return new Proxy(first, {
    get:
      (_target, key: keyof BlockStorage) =>
      (...given: never[]) => {
        if (next !== null) return (storageOf(next)[key] as (...args: never[]) => Promise<unknown>)(...given)
        return Promise.race([(first[key] as (...args: never[]) => Promise<unknown>)(...given), died])
      },
  })
}
