import { rmSync, statfsSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { runCommand } from '../tools/run-command.ts'
import { RESERVE_MIB } from './cluster.ts'
import { rotSome } from './rot.ts'
import { type Fault, goesOn, hold, type Scene } from './scene.ts'

const MIB = 1024 * 1024
/** Stores look once a second whether there is room again. */
const LOOKS_AGAIN_MS = 2000

/** Disks that are full, lie, or fail. */
export const DISK_FAULTS = {
  /** Something else fills a disk, into the store's reserve. */
  fill: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    const ballast = path.join(victim.dataDir, '..', 'ballast')
    const { bavail, bsize } = statfsSync(victim.dataDir)
    const bytes = bavail * bsize - (RESERVE_MIB / 2) * MIB
    await runCommand(['fallocate', '-l', String(bytes), ballast])
    try {
      scene.writer.writeToNewPlace()
      await hold(scene)
    } finally {
      rmSync(ballast)
    }
    await pause(LOOKS_AGAIN_MS)
    await goesOn(scene)
  },
  rot: async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    rotSome(victim.objectDirectories, scene.random)
    await victim.ask('scrub_start', {}) // it would come by itself within a day
    await hold(scene)
  },
  /** The disk that has journal and maps fails, and with it the node, which comes back with an empty one as a new node. */
  'first-disk-dies': async (scene) => {
    const [, ...others] = scene.cluster.stores // the first one has the database of the API there
    const victim = scene.random.pick(others)
    await victim.failDisk('first')
    await hold(scene)
    await victim.switchOff()
    for (const which of ['first', 'second'] as const) await victim.replaceDisk(which)
    await victim.switchOn()
    await scene.cluster.replaceNode(victim)
  },
  /** A disk that has nothing but objects fails, and another one is plugged in while the node goes on. */
  'second-disk-dies': async (scene) => {
    const victim = scene.random.pick(scene.cluster.stores)
    await victim.failDisk('second')
    await hold(scene)
    await victim.collie('node', 'disk', 'unplug', victim.secondDir)
    await victim.replaceDisk('second')
    await victim.collie('node', 'disk', 'plug', victim.secondDir)
  },
  /** As a controller does that resets, or a disk at its last attempts: nothing fails, and nothing comes to an end. */
  'first-disk-hangs': (scene) => hang(scene, 'first'),
  'second-disk-hangs': (scene) => hang(scene, 'second'),
} satisfies Record<string, Fault>

async function hang(scene: Scene, which: 'first' | 'second'): Promise<void> {
  const victim = scene.random.pick(scene.cluster.stores)
  await victim.hangDisk(which)
  try {
    await hold(scene, 4 * scene.holdMs)
  } finally {
    await victim.unhangDisk(which)
  }
}
