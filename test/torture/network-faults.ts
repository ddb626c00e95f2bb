import { setTimeout as pause } from 'node:timers/promises'
import { PORTS } from './host.ts'
import { type Fault, goesOn, hold, shuffled } from './scene.ts'

const LOST_PERCENT = 15
const FLAPS = 8
const FLAP_MS_MAX = 1500

/** Cables that are pulled, and packets that do not arrive. */
export const NETWORK_FAULTS = {
  cut: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    await victim.cut()
    await hold(scene)
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
  /** A host hears the others, and nobody hears it. */
  'one-way': async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    await victim.dropPackets({ leaving: ['oifname eth0'] })
    await hold(scene)
    await victim.heal()
  },
  /** Two hosts do not reach each other, and all others reach both. */
  pair: async (scene) => {
    const [one, other] = shuffled(scene, scene.cluster.stores)
    await one!.dropPackets({ coming: [`ip saddr ${other!.address}`], leaving: [`ip daddr ${other!.address}`] })
    await hold(scene)
    await one!.heal()
  },
  /** A host is alive for its group, and dead where data goes. */
  'data-cut': async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    const data = [`oifname eth0 tcp dport ${PORTS.sheep}`, `oifname eth0 tcp sport ${PORTS.sheep}`]
    await victim.dropPackets({ leaving: data })
    await hold(scene)
    await victim.heal()
  },
  /** Some of the packets of a host are lost. */
  lossy: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    const some = [`iifname eth0 numgen random mod 100 < ${LOST_PERCENT}`]
    await victim.dropPackets({ coming: some })
    await hold(scene, 3 * scene.holdMs)
    await victim.heal()
  },
  /** A cable that has a loose contact. */
  flap: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    for (let i = 0; i < FLAPS; i++) {
      await victim.cut()
      await pause(scene.random.below(FLAP_MS_MAX))
      await victim.heal()
      await pause(scene.random.below(FLAP_MS_MAX))
    }
    await goesOn(scene)
  },
} satisfies Record<string, Fault>
