import { expect, it } from 'vitest'
import { ClusterState } from '../../../src/sheep/cluster-state.ts'
import { CopyCleaner, type CopyCleanerOptions } from '../../../src/sheep/clustered/copy-cleaner.ts'
import { Places } from '../../../src/sheep/clustered/places.ts'
import { VdiCopies } from '../../../src/sheep/clustered/vdi-copies.ts'
import type { View } from '../../../src/sheep/membership/view.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'

const NODE = 'a'.repeat(32)

function viewOf(epoch: number): View {
  const member = { node: NODE, incarnation: 'i', address: '10.0.0.1:7000', zone: 1, vnodes: 128 }
  return { epoch, members: [member], voters: [NODE], at: 0 }
}

it('forgets what is clean though an owner was at work when the log said so, and the log says no more', async () => {
  const clock = new SimClock(new SeededRandom(1))
  const state = new ClusterState()
  for (const epoch of [1, 2]) state.apply(epoch, { type: 'view', ...viewOf(epoch) })
  const drops = [false, false, true]
  const cleaned: number[] = []
  const cleaner = new CopyCleaner({
    state,
    clock: clock.mount(),
    node: NODE,
    places: new Places(),
    copies: new VdiCopies(state),
    holder: { drop: async () => drops.shift()! } as unknown as CopyCleanerOptions['holder'],
    store: {
      clean: (epoch: number, done: (error: null) => void) => {
        cleaned.push(epoch)
        done(null)
      },
    } as unknown as CopyCleanerOptions['store'],
    catchUp: async () => true,
    failed: (error) => {
      throw error
    },
  })
  cleaner.applied({ type: 'clean', epoch: 2, families: [] })
  await cleaner.settled
  expect([drops.length, cleaned]).toEqual([2, []])
  await clock.run(clock.mount().sleep(10_000))
  await cleaner.settled
  expect([drops.length, cleaned]).toEqual([0, [1]])
})
