import { rmSync, statfsSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { SeededRandom } from '../sim/random.ts'
import { runCommand } from '../tools/run-command.ts'
import { type Cluster, RESERVE_MIB } from './cluster.ts'
import type { Host } from './host.ts'
import { rotSome } from './rot.ts'
import type { Writer } from './writer.ts'

/** What a fault is done to. */
export interface Scene {
  cluster: Cluster
  writer: Writer
  random: SeededRandom
  /** How long a fault lasts before it is mended, once the writer goes on. */
  holdMs: number
  /** What is seen while the fault lasts. */
  whileIt(kind: FaultKind): Promise<void>
}

const MIB = 1024 * 1024
const WRITES_TO_GO_ON = 20
const GOES_ON_MS = 60_000
const POLL_MS = 50

/** Each returns when the writer has gone on and the fault is over; that all is well again comes after. */
export const FAULTS = {
  /** The process of a store ends, while its clients are elsewhere. */
  kill: async (scene) => {
    const victim = pickOther(scene)
    await victim.killNode('SIGKILL')
    await hold(scene, 'kill')
    await victim.startNode()
  },
  /** The host of the gateway that the writer is at loses power. */
  'gateway-off': async (scene) => {
    const victim = gatewayOf(scene)
    await victim.switchOff()
    await hold(scene, 'gateway-off')
    await victim.switchOn()
    await victim.startCorosync()
    await victim.startNode()
  },
  /** A process stands still, with its connections open and its corosync well. */
  pause: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    victim.pauseNode()
    await hold(scene, 'pause', 2 * scene.holdMs)
    victim.continueNode()
  },
  cut: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    await victim.cut()
    await hold(scene, 'cut')
    await victim.heal()
  },
  /** So many are cut off that nobody has a majority: nothing is answered until the cables are in again. */
  'cut-majority': async (scene) => {
    const { stores } = scene.cluster
    const victims = shuffled(scene, stores).slice(0, Math.ceil(stores.length / 2))
    for (const victim of victims) await victim.cut()
    await pause(scene.holdMs)
    scene.writer.forgetWait()
    for (const victim of victims) await victim.heal()
    await goesOn(scene)
  },
  /** Something else fills a disk, into the store's reserve. */
  fill: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    const ballast = path.join(victim.dataDir, '..', 'ballast')
    const { bavail, bsize } = statfsSync(victim.dataDir)
    const bytes = bavail * bsize - (RESERVE_MIB / 2) * MIB
    await runCommand(['fallocate', '-l', String(bytes), ballast])
    try {
      scene.writer.writeToNewPlace()
      await hold(scene, 'fill')
    } finally {
      rmSync(ballast)
    }
    await goesOn(scene)
  },
  rot: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    rotSome(victim.dataDir, scene.random)
    await victim.ask('scrub_start', {}) // it would come by itself within a day
    await hold(scene, 'rot')
  },
  'kill-all': async (scene) => {
    const { hosts } = scene.cluster
    await Promise.all(hosts.map((host) => host.killNode('SIGKILL')))
    scene.writer.forgetWait()
    for (const host of shuffled(scene, hosts)) await host.startNode()
    await goesOn(scene)
  },
  /** The power of all hosts goes, of corosync and all; they come back one after the other. */
  'all-off': async (scene) => {
    const { hosts } = scene.cluster
    await Promise.all(hosts.map((host) => host.switchOff()))
    scene.writer.forgetWait()
    for (const host of shuffled(scene, hosts)) {
      await host.switchOn()
      await host.startCorosync()
      await host.startNode()
    }
    await goesOn(scene)
  },
} satisfies Record<string, (scene: Scene) => Promise<void>>

export type FaultKind = keyof typeof FAULTS
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]

async function hold(scene: Scene, kind: FaultKind, ms = scene.holdMs): Promise<void> {
  await Promise.all([goesOn(scene).then(() => scene.whileIt(kind)), pause(ms)])
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

const gatewayOf = ({ cluster, writer }: Scene): Host =>
  cluster.hosts.find(({ nbdAddress }) => nbdAddress === writer.gateway)!

const pickOther = (scene: Scene): Host =>
  scene.random.pick(scene.cluster.stores.filter((host) => host !== gatewayOf(scene)))

function shuffled<T>({ random }: Scene, items: readonly T[]): T[] {
  const left = [...items]
  return items.map(() => left.splice(random.below(left.length), 1)[0]!)
}
