import type { Fault } from './scene.ts'
import { gatewayOf, goesOn, hold, pickOther, shuffled } from './scene.ts'

/** Processes and hosts that end, or stand still. */
export const HOST_FAULTS = {
  /** The process of a store ends, while its clients are elsewhere. */
  kill: async (scene) => {
    const victim = pickOther(scene)
    await victim.killNode('SIGKILL')
    await hold(scene)
    await victim.startNode()
  },
  /** The host of the gateway that the writer is at loses power. */
  'gateway-off': async (scene) => {
    const victim = gatewayOf(scene)
    await victim.switchOff()
    await hold(scene)
    await victim.switchOn()
    await victim.startCorosync()
    await victim.startNode()
  },
  /** A process stands still, with its connections open and its corosync well. */
  pause: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    victim.pauseNode()
    await hold(scene, 2 * scene.holdMs)
    victim.continueNode()
  },
  /** The node learns that its group is gone, and nothing else. */
  'engine-dies': async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    await victim.killCorosync()
    await hold(scene)
    await victim.startCorosync()
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
} satisfies Record<string, Fault>
