import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { runOperation } from '../../src/sheep/ops.ts'
import { VdiClient } from '../../src/vdi/client.ts'
import type { Device, Done } from '../../src/vdi/device.ts'
import type { SeededRandom } from '../sim/random.ts'
import { runSeeds } from '../sim/seeds.ts'
import { ClusterBench } from './clustered/cluster-bench.ts'
import { MarkedContents } from './marked-contents.ts'
import { SheepBench } from './sheep-bench.ts'

const OBJECTS = 4
const VDI_BYTES = OBJECTS * OBJECT_BYTES
/** Of each object the first blocks are written to. */
const BLOCKS = 2

/** A store of one node or of several. */
interface World {
  random: SeededRandom
  vdis(): VdiClient
  run<T>(work: Promise<T>): Promise<T>
  /** Processes end, all or some, and come again. */
  disturb(): Promise<void>
  /** What was deleted is gone, and its vids are free. */
  reclaimed(): Promise<void>
}

/** What a chain of incremental backups has of each object: what was read last, and the mark that it had then. */
type Chain = { mark: string | null; bytes: Buffer }[]

/**
 * Volumes with chains of incremental backups, each of a snapshot that is gone afterwards, among writes, discards, snapshots, rollbacks,
 * clones and crashes. A backup reads what has another mark than before; what it carries over must be what is there.
 */
class BackedUpVolumes {
  readonly #world: World
  readonly #marked = new MarkedContents()
  #volumes: { name: string; tags: string[]; chain: Chain }[] = []
  #names = 0
  readonly counts = { backups: 0, carried: 0, read: 0, reusedVids: 0, rollbacks: 0, clones: 0 }

  constructor(world: World) {
    this.#world = world
  }

  async run(steps: number): Promise<void> {
    const { random } = this.#world
    await this.#do((vdis) => vdis.create('volume', VDI_BYTES))
    this.#volumes.push({ name: 'volume', tags: [], chain: [] })
    for (let step = 0; step < steps; step++) {
      const dice = random.next()
      if (dice < 0.35) await this.#change()
      else if (dice < 0.7) await this.#backUp()
      else if (dice < 0.78) await this.#snapshot()
      else if (dice < 0.83) await this.#rollback()
      else if (dice < 0.88) await this.#deleteSnapshot()
      else if (dice < 0.92) await this.#clone()
      else if (dice < 0.97) await this.#world.reclaimed()
      else await this.#world.disturb()
    }
    this.counts.reusedVids = this.#marked.reusedVids
  }

  #do<T>(work: (vdis: VdiClient) => Promise<T>): Promise<T> {
    return this.#world.run(work(this.#world.vdis()))
  }

  async #using<T>(name: string, tag: string, use: (device: Device) => Promise<T>): Promise<T> {
    return this.#do(async (vdis) => {
      const device = await vdis.open(await vdis.lookup(name, tag), { readOnly: tag !== '' })
      const result = await use(device)
      await device.close()
      return result
    })
  }

  async #change(): Promise<void> {
    const { random } = this.#world
    const { name } = random.pick(this.#volumes)!
    const index = random.below(OBJECTS)
    const offset = index * OBJECT_BYTES + 512 * random.below(BLOCKS * 8 - 1)
    await this.#using(name, '', async (device) => {
      if (random.chance(0.2)) await done((tell) => device.discard(index * OBJECT_BYTES, OBJECT_BYTES, tell))
      else await done((tell) => device.write(offset, random.bytes(512), { fua: random.chance(0.5) }, tell))
    })
  }

  async #backUp(): Promise<void> {
    const { counts } = this
    const volume = this.#world.random.pick(this.#volumes)!
    const tag = `backup ${++this.#names}`
    await this.#snapshotOf(volume.name, tag)
    await this.#using(volume.name, tag, async (device) => {
      const marks = (await device.marks(0, VDI_BYTES)).flatMap(({ lengthBytes, mark }) =>
        Array<string | null>(lengthBytes / OBJECT_BYTES).fill(mark),
      )
      expect(marks.length).toBe(OBJECTS)
      for (const [index, mark] of marks.entries()) {
        if (mark === null) throw new Error('a snapshot of this version has marks')
        const bytes = Buffer.alloc(BLOCKS * BLOCK_BYTES, 0xee)
        await done((tell) => device.read(index * OBJECT_BYTES, bytes, tell))
        this.#marked.see(index, mark, bytes)
        const before = volume.chain[index]
        if (before?.mark !== mark) counts.read++
        else if (before.bytes.equals(bytes)) counts.carried++
        else throw new Error(`object ${index} of ${volume.name} has changed under ${mark}`)
        volume.chain[index] = { mark, bytes }
      }
    })
    await this.#do((vdis) => vdis.remove(volume.name, tag))
    counts.backups++
  }

  async #snapshotOf(name: string, tag: string): Promise<void> {
    await this.#do(async (vdis) => vdis.snapshot(await vdis.lookup(name), tag))
  }

  async #snapshot(): Promise<void> {
    const volume = this.#world.random.pick(this.#volumes)!
    const tag = `snapshot ${++this.#names}`
    await this.#snapshotOf(volume.name, tag)
    volume.tags.push(tag)
  }

  async #rollback(): Promise<void> {
    const { name, tags } = this.#world.random.pick(this.#volumes)!
    const tag = this.#world.random.pick(tags)
    if (tag === undefined) return
    await this.#do((vdis) => vdis.rollback(name, { tag }))
    this.counts.rollbacks++
  }

  async #deleteSnapshot(): Promise<void> {
    const volume = this.#world.random.pick(this.#volumes)!
    const tag = this.#world.random.pick(volume.tags)
    if (tag === undefined) return
    volume.tags = volume.tags.filter((other) => other !== tag)
    await this.#do((vdis) => vdis.remove(volume.name, tag))
  }

  /** It goes on with the chain of what it is a clone of; sometimes another one goes, so that they are few. */
  async #clone(): Promise<void> {
    const from = this.#world.random.pick(this.#volumes)!
    const tag = this.#world.random.pick(from.tags)
    if (tag === undefined) return
    if (this.#volumes.length > 2) {
      const { name, tags } = this.#volumes.pop()!
      for (const each of tags) await this.#do((vdis) => vdis.remove(name, each))
      await this.#do((vdis) => vdis.remove(name))
      return
    }
    const name = `clone ${++this.#names}`
    await this.#do(async (vdis) => vdis.create(name, VDI_BYTES, await vdis.lookup(from.name, tag)))
    this.#volumes.push({ name, tags: [], chain: [...from.chain] })
    this.counts.clones++
  }
}

const done = (start: (tell: Done) => void): Promise<void> =>
  new Promise((resolve, reject) => start((error) => (error ? reject(error) : resolve())))

async function oneNode(seed: number): Promise<World> {
  const bench = await SheepBench.open({ seed })
  const transport = {
    submit: (request: never, reply: never) => runOperation(bench.sheep, request, null, reply),
    close: () => {},
  }
  return {
    random: bench.random,
    vdis: () => new VdiClient(transport),
    run: (work) => bench.run(work),
    disturb: () => bench.restart(bench.random.pick(['kill', 'powerLoss'])),
    reclaimed: () => bench.run(bench.sheep.reclaimed()),
  }
}

async function threeNodes(seed: number): Promise<World> {
  const bench = await ClusterBench.open(seed, 3, { durability: seed % 2 === 0 ? 'write' : 'flush' })
  const { random } = bench
  /** All know what has happened, whoever did it. */
  const areEven = () => new Set(bench.nodes.map(({ running }) => running?.node.sheep.state.index)).size === 1
  let gateway = 0
  return {
    random,
    vdis: () => bench.vdis(gateway),
    run: async (work) => {
      const result = await bench.run(work)
      await bench.until(areEven)
      return result
    },
    disturb: async () => {
      const ended = random.chance(0.5) ? bench.nodes : [random.pick(bench.nodes)!]
      for (const node of ended) bench.kill(node)
      for (const node of ended) await bench.start(node)
      await bench.until(() => bench.nodes.every((node) => bench.isIn(node)) && bench.isClean() && areEven())
      gateway = random.below(3)
    },
    reclaimed: () => bench.pass(2000),
  }
}

describe('marks of what snapshots hold', () => {
  it.each([
    { nodes: 'one node', open: oneNode, seeds: 12, steps: 150 },
    { nodes: 'three nodes', open: threeNodes, seeds: 2, steps: 100 },
  ])(
    'never lie in a store of $nodes, so that what has the same one need not be read',
    { timeout: 300_000 },
    async ({ open, seeds, steps }) => {
      const totals = { backups: 0, carried: 0, read: 0, reusedVids: 0, rollbacks: 0, clones: 0 }
      await runSeeds('test/sheep/content-marks.test.ts', seeds, async (seed) => {
        const volumes = new BackedUpVolumes(await open(seed))
        await volumes.run(steps)
        for (const key of Object.keys(totals) as (keyof typeof totals)[]) totals[key] += volumes.counts[key]
      })
      console.info(totals)
      expect(totals.carried).toBeGreaterThan(totals.read) // else they tell too little
      expect(totals.reusedVids).toBeGreaterThan(seeds)
      expect(Math.min(totals.rollbacks, totals.clones)).toBeGreaterThan(0)
    },
  )
})
