import { describe, expect, it } from 'vitest'
import { dataOid } from '../../../src/protocol/oid.ts'
import { ALL_BLOCKS } from '../../../src/sheep/copies/block-ranges.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import { bringHome } from '../../../src/sheep/copies/copy-recovery.ts'
import { CopySequencer } from '../../../src/sheep/copies/copy-sequencer.ts'
import type { CopyKind } from '../../../src/sheep/copies/copy-store.ts'
import type { CopyRequest } from '../../../src/sheep/copies/messages.ts'
import { cleanVersion, type Version } from '../../../src/sheep/copies/version.ts'
import type { View } from '../../../src/sheep/membership/view.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { runSeeds } from '../../sim/seeds.ts'
import { answerOf } from './answer-of.ts'
import { VID, view } from './copies-bench.ts'
import { SimCopyDisk, SimCopyStore } from './sim-copy-store.ts'

const NODES = [...'ABCDE']
const OIDS = Array.from({ length: 8 }, (_, index) => dataOid(VID, index))
const OID = OIDS[0]!
/** Longer than anything takes that can go on. */
const PATIENCE_MS = 500

const version = (epoch: number, sequence: number): Version => ({
  generation: { epoch, index: epoch, incarnation: 'A.1' },
  sequence,
})

interface CopyIs {
  kind?: CopyKind
  lacks?: number[]
  hasTail?: boolean
}

/** Nodes with copies in whatever state, and owners that look at them. */
class Cluster {
  readonly #random = new SeededRandom(1)
  readonly #root = new SimClock(this.#random)
  readonly clock = this.#root.mount()
  readonly disks = new Map(NODES.map((node) => [node, new SimCopyDisk(this.#random)]))
  readonly stores = new Map(
    [...this.disks].map(([node, disk]) => [node, new SimCopyStore(disk, this.clock, this.#random, 2)]),
  )
  readonly #holders = new Map([...this.stores].map(([node, store]) => [node, new CopyHolder(store)]))
  readonly asked: CopyRequest[] = []
  isSilent = (_node: string) => false
  targetsIn = (_oid: bigint, { members }: View): string[] => members.map(({ node }) => node)
  #index = 1000

  put(node: string, oid: bigint, at: Version, { kind = 'full', lacks = [], hasTail = false }: CopyIs = {}): void {
    const valid = lacks.reduce(
      (ranges, block) => ranges.flatMap(({ first, count }) => withoutBlock(first, count, block)),
      [...ALL_BLOCKS],
    )
    this.disks.get(node)!.copies.set(oid, {
      version: at,
      kind,
      valid: kind === 'stale' || kind === 'removed' ? [] : valid,
      blocks: new Map(),
      inherited: null,
      epochs: new Map(),
      madeEpoch: at.generation.epoch,
      tail: hasTail ? [{ first: 0, count: 1, version: at, previous: null }] : [],
      ends: [],
    })
  }

  owner(...views: View[]): CopySequencer {
    return new CopySequencer({
      vid: VID,
      index: ++this.#index,
      incarnation: 'A.1',
      views,
      copiesMinIn: () => 2,
      targetsOf: (oid, view) => this.targetsIn(oid, view),
      send: (to, request, done) => {
        this.asked.push(request)
        if (this.isSilent(to.node)) done(new Error('no answer'))
        else void answerOf(this.#holders.get(to.node)!, request).then(done, done)
      },
      readNow: () => false,
      mayAct: () => true,
      suspect: () => {},
      clock: this.clock,
    })
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.#root.run(work)
  }

  /** `waits` when it does not come to an end. */
  async patiently<T>(work: Promise<T>): Promise<T | 'waits'> {
    const late = this.clock.sleep(PATIENCE_MS).then(() => 'waits' as const)
    return this.run(Promise.race([work, late]))
  }

  bringHome(owner: CopySequencer, oids: readonly bigint[]): Promise<boolean> {
    return this.run(
      bringHome({
        oids,
        sequencerOf: () => owner,
        isNamed: async () => true,
        goesOn: () => true,
        look: (look) => look(),
        step: (copy) => copy(),
        done: () => {},
      }),
    )
  }

  describe(oid: bigint): string {
    return NODES.map((node) => this.disks.get(node)!.describe(oid)).join('; ')
  }
}

function withoutBlock(first: number, count: number, block: number) {
  const parts = [
    { first, count: block - first },
    { first: block + 1, count: first + count - block - 1 },
  ]
  return block < first || block >= first + count ? [{ first, count }] : parts.filter((part) => part.count > 0)
}

/** Three nodes with one plain copy of each object, of the same version. */
function allPlain(at = version(1, 5)): Cluster {
  const cluster = new Cluster()
  for (const node of 'ABC') for (const oid of OIDS) cluster.put(node, oid, at)
  return cluster
}

describe('a look at many objects', () => {
  it('finds that nothing is missing by asking each node once, and changes nothing', async () => {
    const cluster = allPlain()
    const owner = cluster.owner(view(1, 'ABC'), view(2, 'ABC'))
    const before = OIDS.map((oid) => cluster.describe(oid))
    expect(await cluster.bringHome(owner, OIDS)).toBe(true)
    expect(cluster.asked.map(({ type }) => type)).toEqual(['look', 'look', 'look'])
    expect(OIDS.map((oid) => cluster.describe(oid))).toEqual(before)
  })

  it('is followed by a look at each object that is not plain everywhere, and at no other', async () => {
    const cluster = allPlain()
    cluster.disks.get('B')!.copies.delete(OIDS[1]!)
    cluster.put('C', OIDS[3]!, version(1, 5), { hasTail: true })
    const owner = cluster.owner(view(1, 'ABC'), view(2, 'ABC'))
    expect(await cluster.bringHome(owner, OIDS)).toBe(true)
    const opened = cluster.asked.flatMap((request) => (request.type === 'open' ? request.oids : []))
    expect(new Set(opened)).toEqual(new Set([OIDS[1], OIDS[3]]))
    expect(await cluster.run(owner.mayLack([OIDS[1]!]))).toEqual([]) // by now it has what it lacked
  })

  const two = [view(1, 'ABC'), view(2, 'ABC')]
  it.each<[string, (cluster: Cluster) => void, View[]]>([
    ['is missing', (cluster) => cluster.disks.get('B')!.copies.delete(OID), two],
    ['is stale', (cluster) => cluster.put('B', OID, version(1, 5), { kind: 'stale' }), two],
    ['is of a removed object', (cluster) => cluster.put('B', OID, version(1, 5), { kind: 'removed' }), two],
    ['is partial', (cluster) => cluster.put('B', OID, version(1, 5), { kind: 'partial', lacks: [7] }), two],
    ['has a rotten block', (cluster) => cluster.put('B', OID, version(1, 5), { lacks: [7] }), two],
    ['is older', (cluster) => cluster.put('B', OID, version(1, 4)), two],
    ['is of another generation', (cluster) => cluster.put('B', OID, version(2, 5)), two],
    ['has a tail', (cluster) => cluster.put('B', OID, version(1, 5), { hasTail: true }), two],
    ['has space set aside', (cluster) => cluster.stores.get('B')!.reserve(OID, [{ first: 9, count: 1 }]), two],
    ['may be newer with a node that is away', () => {}, [view(1, 'ABC'), view(2, 'ABCD'), view(3, 'ABC')]],
  ])('does not speak for an object of which a copy %s', async (_what, change, views) => {
    const cluster = allPlain()
    change(cluster)
    expect(await cluster.run(cluster.owner(...views).mayLack([OID]))).toEqual([OID])
  })

  it('does not speak for what a node has that does not answer, and for all others', async () => {
    const cluster = allPlain()
    cluster.targetsIn = (oid) => [...(oid === OID ? 'AB' : 'BC')]
    cluster.isSilent = (node) => node === 'A'
    expect(await cluster.run(cluster.owner(view(1, 'ABC')).mayLack(OIDS))).toEqual([OID])
  })

  it('asks those who had a copy in an earlier view, and takes their word for that view', async () => {
    const cluster = allPlain()
    cluster.targetsIn = (_oid, { epoch }) => [...(epoch === 1 ? 'AB' : 'BC')]
    const owner = cluster.owner(view(1, 'ABC'), view(2, 'ABC'))
    expect(await cluster.run(owner.mayLack(OIDS))).toEqual([])
    cluster.put('A', OID, version(1, 6))
    expect(await cluster.run(owner.mayLack(OIDS))).toEqual([OID])
  })

  it('leaves to a read to decide what only a node has that is away, though the views are forgotten in which it was there', async () => {
    const cluster = allPlain()
    cluster.put('C', OID, version(1, 6), { hasTail: true })
    const away = view(2, 'AB')
    const owner = cluster.owner(view(1, 'ABC'), away)
    expect(await cluster.bringHome(owner, OIDS)).toBe(true)
    owner.viewsChanged([away])
    await cluster.run(owner.read(OID, { first: 0, count: 1 }))
    const epochOn = (node: string) => cluster.disks.get(node)!.copies.get(OID)!.version.generation.epoch
    expect(['A', 'B', 'C'].map(epochOn)).toEqual([2, 2, 1]) // so what C has is no longer the highest
  })

  it('seals the VDI: a write of the owner before is refused', async () => {
    const cluster = allPlain()
    const before = cluster.owner(view(1, 'ABC'))
    const contents = { blocks: [{ first: 0, bytes: Buffer.alloc(4096, 1) }], zeros: [] }
    await cluster.run(before.write(OIDS[1]!, contents))
    await cluster.run(cluster.owner(view(1, 'ABC')).mayLack([OID]))
    const state = cluster.describe(OIDS[1]!)
    expect(await cluster.patiently(before.write(OIDS[1]!, contents))).toBe('waits')
    expect(cluster.describe(OIDS[1]!)).toBe(state)
  })

  it('says what is on the disks', async () => {
    const cluster = allPlain()
    cluster.disks.get('B')!.set(OID, cluster.disks.get('B')!.copies.get(OID)!, true)
    await cluster.run(cluster.owner(view(1, 'ABC')).mayLack([OID]))
    expect(cluster.disks.get('B')!.isSynced).toBe(true)
  })

  it('says nothing of any of them when another view comes meanwhile', async () => {
    const cluster = allPlain()
    const owner = cluster.owner(view(1, 'ABC'), view(2, 'ABC'))
    const looked = owner.mayLack(OIDS)
    cluster.clock.timer(0, () => owner.viewsChanged([view(1, 'ABC'), view(2, 'ABC'), view(3, 'ABC')]))
    expect(await cluster.run(looked)).toEqual(OIDS)
  })

  it('leaves what is set aside for a write that is about to come', async () => {
    const cluster = allPlain()
    const owner = cluster.owner(view(1, 'ABC'))
    for (const disk of cluster.disks.values()) disk.freeBlocks = 1
    const contents = { blocks: [{ first: 0, bytes: Buffer.alloc(4096, 1) }], zeros: [] }
    const write = owner.write(OID, contents)
    const looks = (async () => {
      for (let i = 0; i < 20; i++) await owner.mayLack(OIDS)
    })()
    await cluster.run(Promise.all([write, looks]))
    expect([...'ABC'].map((node) => cluster.disks.get(node)!.copies.get(OID)!.kind)).toEqual(['full', 'full', 'full'])
  })
})

/** Views, where objects belong in them, and copies in states that are mostly as they should be. */
function randomCluster(random: SeededRandom): { cluster: Cluster; views: View[] } {
  const cluster = new Cluster()
  const views = Array.from({ length: 1 + random.below(3) }, (_, at) => {
    const members = NODES.filter(() => random.chance(0.7))
    const nodes = members.length > 0 ? members : ['A']
    const removed = NODES.filter((node) => !nodes.includes(node) && random.chance(0.2))
    return { ...view(2 + at, nodes.join('')), ...(removed.length > 0 && { removed }) }
  })
  const places = new Map<string, string[]>()
  const order = NODES.map((node) => ({ node, at: random.next() })).sort((a, b) => a.at - b.at)
  cluster.targetsIn = (oid, { epoch, members }) => {
    const key = `${oid} ${epoch}`
    const there = order.map(({ node }) => node).filter((node) => members.some((member) => member.node === node))
    const all = random.chance(0.03) ? NODES : there.slice(random.chance(0.1) ? 1 : 0)
    const targets = places.get(key) ?? all.slice(0, 3)
    places.set(key, targets)
    return targets
  }
  for (const disk of cluster.disks.values()) disk.lostThroughEpoch = random.chance(0.8) ? 0 : 1 + random.below(4)
  for (const oid of OIDS) {
    const best = random.chance(0.3) ? cleanVersion(1) : version(1 + random.below(4), 1 + random.below(9))
    const isEven = random.chance(0.6)
    for (const node of NODES) {
      const isOther = !isEven && random.chance(0.3)
      if (isOther && random.chance(0.3)) continue
      const at = isOther ? version(1 + random.below(4), 1 + random.below(9)) : best
      const kind = isOther ? random.pick<CopyKind>(['full', 'full', 'partial', 'stale', 'removed']) : 'full'
      const lacks = isOther && (kind === 'partial' || random.chance(0.3)) ? [random.below(1024)] : []
      cluster.put(node, oid, at, { kind, lacks, hasTail: isOther && random.chance(0.3) })
    }
  }
  return { cluster, views }
}

describe('a look at many objects, and one at each of them', () => {
  it('say the same of copies in whatever states', { timeout: 600_000 }, async () => {
    const counts = { home: 0, lacking: 0, waiting: 0 }
    const seeds = await runSeeds('test/sheep/copies/bulk-look.test.ts', 150, async (seed) => {
      const { cluster, views } = randomCluster(new SeededRandom(seed))
      const last = views.at(-1)!
      const former = (oid: bigint) => new Set(views.flatMap((each) => cluster.targetsIn(oid, each)))
      const isPlain = (node: string, oid: bigint) => cluster.stores.get(node)!.plainVersionOf(oid) !== null
      const isAway = (oid: bigint) =>
        [...former(oid)].some((node) => {
          const wasThere = views.some(({ members }) => members.some((member) => member.node === node))
          return wasThere && !last.removed?.includes(node) && !last.members.some((member) => member.node === node)
        })
      const before = OIDS.map((oid) => cluster.describe(oid))
      const lacking = await cluster.run(cluster.owner(...views).mayLack(OIDS))
      expect(OIDS.map((oid) => cluster.describe(oid))).toEqual(before)
      for (const oid of OIDS) {
        // An open does not mind a node that has no business with the object any more, and has nothing of it that counts.
        const holders = last.members.map(({ node }) => node).filter((node) => former(oid).has(node))
        const arePlain = holders.every((node) => isPlain(node, oid))
        cluster.asked.length = 0
        const lack = await cluster.patiently(
          cluster
            .owner(...views)
            .lackOf(oid)
            .catch((error: Error) => error.message),
        )
        const isHome = lack === null && arePlain && !isAway(oid) && cluster.asked.every(({ type }) => type === 'open')
        expect({ oid, isLacking: lacking.includes(oid) }).toEqual({ oid, isLacking: !isHome })
        counts[isHome ? 'home' : lack === 'waits' ? 'waiting' : 'lacking']++
      }
    })
    console.info({ seeds, ...counts })
    if (seeds >= 150) expect(Math.min(...Object.values(counts))).toBeGreaterThan(seeds / 10)
  })
})
