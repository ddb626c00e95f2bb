import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../sim/random.ts'
import type { Cluster } from './cluster.ts'
import type { Host } from './host.ts'
import type { Writer } from './writer.ts'

/** What a fault is done to. */
export interface Scene {
  cluster: Cluster
  writer: Writer
  random: SeededRandom
  /** How long a fault lasts before it is mended, once the writer goes on. */
  holdMs: number
  /** What is seen while the fault lasts. */
  whileIt(): Promise<void>
}

/** Returns when the writer has gone on and the fault is over; that all is well again comes after. */
export type Fault = (scene: Scene) => Promise<void>

const WRITES_TO_GO_ON = 20
const GOES_ON_MS = 60_000
const POLL_MS = 50

/** While something is broken: until the writer has gone on, and `ms` are over. */
export async function hold(scene: Scene, ms = scene.holdMs): Promise<void> {
  await Promise.all([goesOn(scene).then(() => scene.whileIt()), pause(ms)])
}

/** Until it has been answered some more writes, at whichever gateway. */
export async function goesOn({ writer }: Pick<Scene, 'writer'>): Promise<void> {
  const enough = writer.tally.acknowledged + WRITES_TO_GO_ON
  const deadline = Date.now() + GOES_ON_MS
  while (writer.tally.acknowledged < enough) {
    if (writer.failure) throw writer.failure
    if (Date.now() > deadline) {
      throw new Error(`the writer did not go on in ${GOES_ON_MS} ms, last at ${writer.gateway}: ${writer.lastLoss}`)
    }
    await pause(POLL_MS)
  }
}

export const gatewayOf = ({ cluster, writer }: Scene): Host =>
  cluster.hosts.find(({ nbdAddress }) => nbdAddress === writer.gateway)!

export const pickOther = (scene: Scene): Host =>
  scene.random.pick(scene.cluster.stores.filter((host) => host !== gatewayOf(scene)))

export function shuffled<T>({ random }: Scene, items: readonly T[]): T[] {
  const left = [...items]
  return items.map(() => left.splice(random.below(left.length), 1)[0]!)
}
